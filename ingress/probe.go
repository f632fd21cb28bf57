package ingress

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

// Prober checks releases through the node's own ingress listener, the way users reach them.
type Prober struct {
	ingress *Ingress
	addr    string // host:port
	client  *http.Client
}

// Prober makes a prober that connects to addr (host:port), where the handler listens; an address that stands for all
// interfaces is reached through loopback.
func (g *Ingress) Prober(addr string) *Prober {
	return &Prober{ingress: g, addr: reachable(addr), client: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: 10 * time.Second},
	}}
}

// reachable replaces the unspecified address by loopback.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	switch ip := net.ParseIP(host); {
	case host == "" || ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.Equal(net.IPv6unspecified):
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// Routed reports that this node's ingress leads the release's own host to the release; else the error is of code
// Unhealthy.
func (p *Prober) Routed(_ context.Context, d *fsm.Deployment) error {
	s := p.ingress.cfg.States.State()
	if route, ok := Resolve(s, releaseHost(s, d)); ok && route.Deployment == d.ID {
		return nil
	}
	return errs.New(errs.Unhealthy, "host %s does not lead to deployment %s on node %q", releaseHost(s, d), d.ID, p.ingress.cfg.NodeID).
		WithHint("it does once this node has applied the log entry that made the route")
}

// releaseHost is the host under which the release is reached whether or not it is active.
func releaseHost(s *fsm.State, d *fsm.Deployment) string {
	return strings.ToLower(d.ID) + "--" + d.Project + "." + s.Settings().BaseDomain
}

// Probe asks this node's instance of the release for the health path, once. Within the spec's timeout the answer must
// come with a status below 400 and from that release; the error is of code Unhealthy and says what was answered.
func (p *Prober) Probe(ctx context.Context, d *fsm.Deployment) error {
	if err := fault.Point("ingress.probe.before"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.Spec.Health.Timeout.Std())
	defer cancel()
	req, err := p.request(ctx, d)
	if err != nil {
		return err
	}
	began := time.Now()
	res, err := p.client.Do(req)
	if err != nil {
		return p.unhealthy(d, fmt.Errorf("no answer after %s: %w", time.Since(began).Round(time.Millisecond), err))
	}
	defer res.Body.Close()
	if err := p.judge(res, d.ID); err != nil {
		return p.unhealthy(d, err)
	}
	return fault.Point("ingress.probe.after")
}

func (p *Prober) request(ctx context.Context, d *fsm.Deployment) (*http.Request, error) {
	path, err := url.ParseRequestURI(d.Spec.Health.Path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "health path: %w", err).WithField("health.path").WithHint("give a path such as /healthz")
	}
	u := url.URL{Scheme: "http", Host: p.addr, Path: path.Path, RawPath: path.RawPath, RawQuery: path.RawQuery}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make the health check's request: %w", err)
	}
	req.Host = releaseHost(p.ingress.cfg.States.State(), d)
	req.Header.Set(headerProbe, p.ingress.secret)
	req.Header.Set("User-Agent", "kontiki-health-check")
	return req, nil
}

// judge says why an answer does not show a release that works, or nil.
func (p *Prober) judge(res *http.Response, deployment string) error {
	if res.StatusCode >= http.StatusBadRequest {
		start, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // what can be read is enough for a message
		return fmt.Errorf("answered %s: %q", res.Status, start)
	}
	if got := res.Header.Get(HeaderRelease); got != deployment {
		return fmt.Errorf("answered %s by release %q", res.Status, got)
	}
	if got := res.Header.Get(HeaderNode); got != p.ingress.cfg.NodeID {
		return fmt.Errorf("answered %s by node %q", res.Status, got)
	}
	return nil
}

func (p *Prober) unhealthy(d *fsm.Deployment, cause error) error {
	return errs.New(errs.Unhealthy, "health check of deployment %s of project %q on node %q: GET %s %w",
		d.ID, d.Project, p.ingress.cfg.NodeID, d.Spec.Health.Path, cause).
		WithHint("the health path must answer with a status below 400 within %s", d.Spec.Health.Timeout.Std())
}
