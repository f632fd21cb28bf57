package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

// Filter chooses deployments; empty fields choose all.
type Filter struct {
	Project string
	Status  fsm.Status
	Phase   fsm.Phase
	List
}

// Deployments lists deployments, newest first.
func (c *Client) Deployments(ctx context.Context, f Filter) (api.Page[fsm.Deployment], error) {
	v := f.values()
	setIf(v, "project", f.Project)
	setIf(v, "status", string(f.Status))
	setIf(v, "phase", string(f.Phase))
	return get[api.Page[fsm.Deployment]](ctx, c, "/api/deployments", v)
}

// Deployment gets a deployment with its timeline.
func (c *Client) Deployment(ctx context.Context, id string) (fsm.Deployment, error) {
	return get[fsm.Deployment](ctx, c, deploymentPath(id), nil)
}

// Cancel ends a queued or running deployment.
func (c *Client) Cancel(ctx context.Context, id string) (fsm.Deployment, error) {
	return send[fsm.Deployment](ctx, c, http.MethodPost, deploymentPath(id)+"/cancel", nil)
}

// Logs gets what the deployment's steps have written so far, of all nodes.
func (c *Client) Logs(ctx context.Context, id string) (api.Logs, error) {
	return get[api.Logs](ctx, c, deploymentPath(id)+"/logs", nil)
}

func deploymentPath(id string) string { return "/api/deployments/" + url.PathEscape(id) }

// How is how a version is to be run; zero values leave it to the defaults.
type How struct {
	Create   bool // make the project if it is not there
	Replicas fsm.Replicas
	Label    string // what the user calls this version
	Health   fsm.Health
}

func (h How) values() url.Values {
	v := url.Values{}
	if h.Create {
		v.Set("create", "true")
	}
	switch h.Replicas {
	case 0:
	case fsm.ReplicasAll:
		v.Set("replicas", "all")
	default:
		v.Set("replicas", strconv.Itoa(int(h.Replicas)))
	}
	setIf(v, "label", h.Label)
	setIf(v, "health_path", h.Health.Path)
	for name, m := range map[string]fsm.Millis{"health_interval": h.Health.Interval,
		"health_timeout": h.Health.Timeout, "health_start_period": h.Health.StartPeriod} {
		if m != 0 {
			v.Set(name, m.Std().String())
		}
	}
	if h.Health.Retries != 0 {
		v.Set("health_retries", strconv.Itoa(h.Health.Retries))
	}
	return v
}

// Plan says what a deployment would do if it were made now; only Create and Replicas of how matter.
func (c *Client) Plan(ctx context.Context, project string, how How) (api.Plan, error) {
	v := How{Create: how.Create, Replicas: how.Replicas}.values()
	return get[api.Plan](ctx, c, projectPath(project)+"/plan", v)
}

// DeployRequest is an archive to deploy.
type DeployRequest struct {
	Project     string
	Archive     io.ReadSeeker // tar, tar.gz, tar.zst or zip; read from its start, maybe more than once, never all at once
	ContentType string        // empty leaves it to the server to look
	How
	OnSent func(sent int64) // told how many bytes are sent, from 0 again when another node is asked; may be nil
}

// Deploy uploads an archive and queues its deployment; it returns when a majority of nodes holds the archive and the
// deployment is committed.
func (c *Client) Deploy(ctx context.Context, r DeployRequest) (fsm.Deployment, error) {
	size, err := r.Archive.Seek(0, io.SeekEnd)
	if err != nil {
		return fsm.Deployment{}, errs.New(errs.Invalid, "find the archive's size: %w", err)
	}
	if r.ContentType == "" {
		r.ContentType = "application/octet-stream"
	}
	header := http.Header{api.HeaderKey: {keyFor(ctx)}, "Content-Type": {r.ContentType}}
	if size > 256<<10 {
		header.Set("Expect", "100-continue") // a node that refuses says so before the archive is sent
	}
	var out fsm.Deployment
	err = c.do(ctx, call{method: http.MethodPost, path: projectPath(r.Project) + "/deployments", query: r.How.values(),
		header: header, body: r.Archive, size: size, sent: r.OnSent}, &out)
	return out, err
}
