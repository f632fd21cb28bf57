package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

// EnsureServer makes the project's server run as it should and gives the URL under which this node reaches it, once it
// answers. One that is as it should be is left alone; one that has stopped is started; one that was made differently,
// or is unhealthy, is replaced: its successor answers before it is stopped.
func (e *Engine) EnsureServer(ctx context.Context, project string, health fsm.Health) (string, error) {
	p, err := e.project(project)
	if err != nil {
		return "", err
	}
	if err := acquire(ctx, p.work); err != nil {
		return "", err
	}
	defer func() { <-p.work }()
	want, err := e.want(project, health)
	if err != nil {
		return "", err
	}
	have, err := e.find(ctx, project)
	if err != nil {
		return "", err
	}
	keep, rest := choose(have, want)
	endpoint, err := e.bring(ctx, want, keep, rest)
	if err != nil {
		return "", err
	}
	p.place.set(endpoint)
	for _, c := range rest {
		if err := e.remove(ctx, project, c.ID); err != nil {
			return "", err
		}
	}
	return endpoint, nil
}

// bring gives the URL of the server to keep, or with none of a new one, when it answers. The rest are those it takes
// the place of; they go on when it does not come up.
func (e *Engine) bring(ctx context.Context, want server, keep *container.InspectResponse, rest []container.InspectResponse) (string, error) {
	if keep != nil {
		if keep.State.Running && e.answers(ctx, published(*keep)) == nil {
			return published(*keep), nil
		}
		return e.run(ctx, want.project, keep.ID)
	}
	id, err := e.make(ctx, want, rest)
	if err != nil {
		return "", err
	}
	endpoint, err := e.run(ctx, want.project, id)
	if err != nil && len(rest) > 0 {
		return "", e.giveUp(ctx, want.project, id, err)
	}
	return endpoint, err
}

// find gives our servers of the project, whatever their state.
func (e *Engine) find(ctx context.Context, project string) ([]container.InspectResponse, error) {
	var listed []container.Summary
	err := call(ctx, e.limits.call, fmt.Sprintf("look for the server of project %q", project), func(ctx context.Context) (err error) {
		listed, err = e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: e.filter(project)})
		return err
	})
	if err != nil {
		return nil, err
	}
	var found []container.InspectResponse
	for _, l := range listed {
		c, err := e.inspect(ctx, l.ID)
		switch {
		case cerrdefs.IsNotFound(err):
			continue
		case err != nil:
			return nil, err
		case e.owned(c.Config.Labels, project):
			found = append(found, c)
		}
	}
	return found, nil
}

// inspect looks at a container by ID or name.
func (e *Engine) inspect(ctx context.Context, id string) (c container.InspectResponse, err error) {
	err = call(ctx, e.limits.call, "look at container "+id, func(ctx context.Context) (err error) {
		c, err = e.api.ContainerInspect(ctx, id)
		if err == nil && (c.ContainerJSONBase == nil || c.State == nil || c.Config == nil || c.NetworkSettings == nil) {
			err = errors.New("the engine's answer is incomplete")
		}
		return err
	})
	return c, err
}

// choose picks the container that is as it should be, running before stopped; nil when there is none.
func choose(have []container.InspectResponse, want server) (keep *container.InspectResponse, rest []container.InspectResponse) {
	best := -1
	for i, c := range have {
		if !fit(c, want) {
			continue
		}
		if best < 0 || c.State.Running && !have[best].State.Running {
			best = i
		}
	}
	for i, c := range have {
		if i == best {
			keep = &c
			continue
		}
		rest = append(rest, c)
	}
	return keep, rest
}

// fit reports whether a container is as it should be and either stopped or well.
func fit(c container.InspectResponse, want server) bool {
	s := c.State
	if c.Config.Labels[labelConfig] != want.config.Labels[labelConfig] || s.Dead || s.Paused || s.Status == container.StateRemoving {
		return false
	}
	if !s.Running || s.Restarting {
		return true
	}
	return published(c) != "" && (s.Health == nil || s.Health.Status != container.Unhealthy)
}

// published gives the URL of a running server, "" when it has been cut off from its network.
func published(c container.InspectResponse) string {
	for _, b := range c.NetworkSettings.Ports[serverPort] {
		if b.HostPort != "" {
			return "http://" + net.JoinHostPort(b.HostIP, b.HostPort)
		}
	}
	return ""
}

// make makes a new server, not running yet. One that has its name gives it up and runs on.
func (e *Engine) make(ctx context.Context, want server, old []container.InspectResponse) (string, error) {
	if err := e.ensureImage(ctx); err != nil {
		return "", err
	}
	for _, c := range old {
		if strings.TrimPrefix(c.Name, "/") != want.name {
			continue
		}
		if err := e.rename(ctx, c.ID, want.name+"-old-"+c.ID[:min(12, len(c.ID))]); err != nil {
			return "", err
		}
	}
	if err := fault.Point("docker.create.before"); err != nil {
		return "", err
	}
	var made container.CreateResponse
	err := call(ctx, e.limits.call, "create container "+want.name, func(ctx context.Context) (err error) {
		made, err = e.api.ContainerCreate(ctx, want.config, want.host, nil, nil, want.name)
		return err
	})
	if err != nil {
		made.ID, err = e.adopt(ctx, want, err)
	}
	if err != nil {
		return "", err
	}
	e.cfg.Logger.Info("server created", "project", want.project, "node", e.cfg.NodeID, "container", want.name)
	return made.ID, fault.Point("docker.create.after")
}

// adopt takes the container that is there under the name after a create that failed: the reply may have been lost. It
// is ours only by its labels.
func (e *Engine) adopt(ctx context.Context, want server, failed error) (string, error) {
	c, err := e.inspect(ctx, want.name)
	switch {
	case err != nil:
		return "", failed
	case !e.owned(c.Config.Labels, want.project):
		return "", errs.New(errs.Conflict, "a container that is not Kontiki's has the name %s, which the server of project %q needs", want.name, want.project).
			WithHint("rename it: docker rename %s another-name", want.name)
	case !fit(c, want):
		return "", failed
	}
	return c.ID, nil
}

func (e *Engine) rename(ctx context.Context, id, name string) error {
	if err := fault.Point("docker.rename.before"); err != nil {
		return err
	}
	err := call(ctx, e.limits.call, "rename container "+id, func(ctx context.Context) error {
		return e.api.ContainerRename(ctx, id, name)
	})
	if err != nil && !cerrdefs.IsNotFound(err) {
		return err
	}
	return fault.Point("docker.rename.after")
}

// run starts the container unless it runs and gives its URL when it answers.
func (e *Engine) run(ctx context.Context, project, id string) (string, error) {
	c, err := e.inspect(ctx, id)
	if err != nil {
		return "", err
	}
	if !c.State.Running {
		if err := e.start(ctx, id); err != nil {
			return "", err
		}
	}
	return e.await(ctx, project, id)
}

// await gives the server's URL when it answers.
func (e *Engine) await(ctx context.Context, project, id string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, e.limits.ready)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		c, err := e.inspect(limited, id)
		if err == nil && !c.State.Running {
			return "", e.exited(ctx, project, c)
		}
		if err == nil {
			endpoint := published(c)
			if err = e.answers(limited, endpoint); err == nil {
				return endpoint, nil
			}
		}
		if cerrdefs.IsNotFound(err) || ctx.Err() != nil {
			return "", err
		}
		select {
		case <-time.After(pause):
		case <-limited.Done():
			return "", errs.New(errs.DockerTimeout, "the server of project %q does not answer %s after its start: %w", project, e.limits.ready, err).
				WithHint("see its output: docker logs %s", e.name(project))
		}
	}
}

func (e *Engine) start(ctx context.Context, id string) error {
	if err := fault.Point("docker.start.before"); err != nil {
		return err
	}
	err := call(ctx, e.limits.call, "start container "+id, func(ctx context.Context) error {
		return e.api.ContainerStart(ctx, id, container.StartOptions{})
	})
	if err != nil {
		return err
	}
	return fault.Point("docker.start.after")
}

// answers reports whether a server speaks HTTP. That a connection is accepted proves nothing: the engine's own proxy
// accepts it.
func (e *Engine) answers(ctx context.Context, endpoint string) error {
	if endpoint == "" {
		return errors.New("the server has no port on this machine")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, endpoint+"/", nil)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	res, err := e.http.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	return res.Body.Close()
}

// exited says why a server that was started does not run.
func (e *Engine) exited(ctx context.Context, project string, c container.InspectResponse) error {
	var output bytes.Buffer
	err := call(ctx, e.limits.call, "read the output of container "+c.ID, func(ctx context.Context) error {
		r, err := e.api.ContainerLogs(ctx, c.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: "10"})
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = stdcopy.StdCopy(&output, &output, r)
		return err
	})
	if err != nil {
		fmt.Fprintf(&output, "(%v)", err)
	}
	const most = 2000
	lines := strings.TrimSpace(output.String())
	if len(lines) > most {
		lines = "…" + strings.ToValidUTF8(lines[len(lines)-most:], "")
	}
	return errs.New(errs.DockerError, "the server of project %q ended with exit code %d %s: %s", project, c.State.ExitCode, c.State.Error, lines).
		WithHint("see all of its output: docker logs %s", strings.TrimPrefix(c.Name, "/"))
}

// giveUp removes a successor that does not come up.
func (e *Engine) giveUp(ctx context.Context, project, id string, cause error) error {
	if err := e.remove(ctx, project, id); err != nil {
		return fmt.Errorf("%w; and its container stays: %w", cause, err)
	}
	return cause
}
