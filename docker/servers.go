package docker

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"kontiki/errs"
	"kontiki/fault"
)

// ServerInfo is one of this node's project servers as the engine has it.
type ServerInfo struct {
	Project   string
	Container string // ID
	Name      string
	State     string // the engine's: created, running, paused, restarting, removing, exited or dead
	Unhealthy bool   // its health check fails
	Endpoint  string // URL for this node; "" when it does not run or was cut off from its network
}

// Servers lists this node's project servers by project and name.
func (e *Engine) Servers(ctx context.Context) ([]ServerInfo, error) {
	all, err := e.list(ctx, "", "")
	if err != nil {
		return nil, err
	}
	ill, err := e.list(ctx, "", container.Unhealthy)
	if err != nil {
		return nil, err
	}
	var out []ServerInfo
	for _, c := range all {
		out = append(out, ServerInfo{Project: c.Labels[labelProject], Container: c.ID, Name: nameOf(c), State: c.State, Endpoint: endpointOf(c),
			Unhealthy: slices.ContainsFunc(ill, func(i container.Summary) bool { return i.ID == c.ID })})
	}
	slices.SortFunc(out, func(a, b ServerInfo) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Working asks the engine which projects' servers run on this node and are not ill; an error says nothing about them.
func (e *Engine) Working(ctx context.Context) (func(project string) bool, error) {
	servers, err := e.Servers(ctx)
	if err != nil {
		return nil, err
	}
	works := map[string]bool{}
	for _, s := range servers {
		if s.State == container.StateRunning && !s.Unhealthy && s.Endpoint != "" {
			works[s.Project] = true
		}
	}
	return func(project string) bool { return works[project] }, nil
}

// list gives our servers of the project (of all for ""), of the given health only unless that is "".
func (e *Engine) list(ctx context.Context, project, health string) ([]container.Summary, error) {
	args := e.filter(project)
	if health != "" {
		args.Add("health", health)
	}
	var listed []container.Summary
	err := call(ctx, e.limits.call, "list the project servers", func(ctx context.Context) (err error) {
		listed, err = e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
		return err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(listed, func(c container.Summary) bool { return !e.owned(c.Labels, project) }), nil
}

func nameOf(c container.Summary) string {
	if len(c.Names) == 0 {
		return ""
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

func endpointOf(c container.Summary) string {
	for _, p := range c.Ports {
		if p.PrivatePort == uint16(serverPort.Int()) && p.PublicPort != 0 {
			return "http://" + net.JoinHostPort(p.IP, strconv.Itoa(int(p.PublicPort)))
		}
	}
	return ""
}

// RemoveServer stops and removes the project's server on this node, of whatever state; none is success.
func (e *Engine) RemoveServer(ctx context.Context, project string) error {
	p, err := e.project(project)
	if err != nil {
		return err
	}
	if err := acquire(ctx, p.work); err != nil {
		return err
	}
	defer func() { <-p.work }()
	found, err := e.list(ctx, project, "")
	if err != nil {
		return err
	}
	p.place.set("")
	for _, c := range found {
		if err := e.remove(ctx, project, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// remove stops a container, which may finish the requests it has, and removes it; one that is gone is success.
func (e *Engine) remove(ctx context.Context, project, id string) error {
	if err := fault.Point("docker.remove.before"); err != nil {
		return err
	}
	grace := int(e.limits.grace / time.Second)
	err := call(ctx, e.limits.call+e.limits.grace, "stop container "+id, func(ctx context.Context) error {
		return e.api.ContainerStop(ctx, id, container.StopOptions{Timeout: &grace})
	})
	if err == nil {
		err = call(ctx, e.limits.call, "remove container "+id, func(ctx context.Context) error {
			return e.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		})
	}
	if cerrdefs.IsConflict(err) { // somebody else removes it at this moment
		err = e.gone(ctx, id, err)
	}
	if err != nil && !cerrdefs.IsNotFound(err) {
		return err
	}
	e.cfg.Logger.Info("server removed", "project", project, "node", e.cfg.NodeID, "container", id)
	return fault.Point("docker.remove.after")
}

// gone waits until the engine has the container no more.
func (e *Engine) gone(ctx context.Context, id string, conflict error) error {
	ctx, cancel := context.WithTimeout(ctx, e.limits.call)
	defer cancel()
	for {
		if _, err := e.inspect(ctx, id); err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errs.New(errs.DockerTimeout, "container %s does not go away: %w", id, fmt.Errorf("%w: %w", conflict, ctx.Err()))
		}
	}
}
