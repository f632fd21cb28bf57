package docker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"

	"kontiki/errs"
)

// headerRelease names the deployment that is asked for, and in the answer the one that answers.
const headerRelease = "Kontiki-Release"

func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	return &http.Transport{DialContext: dialer.DialContext, DisableCompression: true, MaxIdleConns: 512,
		MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: 10 * time.Second}
}

// ServeRelease answers the request with content of exactly that release, from the project's server on this node. It
// returns an error, of code Unavailable or the engine's, only when it has written nothing: the server or the release is
// not there. The engine is asked only when it is not known where the server is.
func (e *Engine) ServeRelease(w http.ResponseWriter, r *http.Request, project, deployment string) error {
	p, err := e.project(project)
	if err != nil {
		return err
	}
	known := p.place.endpoint()
	if known != "" {
		if err = e.pass(w, r, known, deployment); err == nil || r.Context().Err() != nil {
			return err
		}
	}
	// A server that was restarted has another port.
	now, lookupErr := e.locate(r.Context(), p, project)
	switch {
	case lookupErr != nil && known == "":
		return lookupErr
	case lookupErr == nil && now == "":
		return errs.New(errs.Unavailable, "project %q has no running server on node %q", project, e.cfg.NodeID)
	case lookupErr != nil || now == known || known != "" && !repeatable(r):
		return err
	}
	return e.pass(w, r, now, deployment)
}

// repeatable reports whether the request can be sent twice without harm.
func repeatable(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) && r.ContentLength == 0
}

// pass has the server at the endpoint answer.
func (e *Engine) pass(w http.ResponseWriter, r *http.Request, endpoint, deployment string) error {
	target, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("address of the server: %w", err)
	}
	proxy := httputil.ReverseProxy{
		Rewrite:    func(pr *httputil.ProxyRequest) { address(pr, target, deployment) },
		Transport:  e.http,
		BufferPool: buffers,
		ErrorLog:   slog.NewLogLogger(e.cfg.Logger.Handler(), slog.LevelDebug),
		ModifyResponse: func(res *http.Response) error {
			if got := res.Header.Get(headerRelease); got != deployment {
				return fmt.Errorf("the server at %s was asked for release %s and answered %s by %q", endpoint, deployment, res.Status, got)
			}
			w.Header().Del(headerRelease) // the answer's own comes in its place
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, failed error) { err = failed },
	}
	proxy.ServeHTTP(w, r)
	if err != nil {
		return errs.New(errs.Unavailable, "pass the request to the project's server: %w", err)
	}
	return nil
}

// address makes the request one for the server: the same path, query and host, and the release wanted.
func address(pr *httputil.ProxyRequest, target *url.URL, deployment string) {
	out := pr.Out
	out.URL.Scheme, out.URL.Host = target.Scheme, target.Host
	out.URL.RawQuery = pr.In.URL.RawQuery
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		out.Header[name] = pr.In.Header[name]
	}
	out.Header.Set(headerRelease, deployment)
}

// place is where a project's server is, as far as is known.
type place struct {
	url    atomic.Pointer[string]
	turn   chan struct{} // held while the engine is asked; guards what follows
	asked  time.Time
	failed error
}

// endpoint gives the URL, "" when it is not known.
func (p *place) endpoint() string {
	if u := p.url.Load(); u != nil {
		return *u
	}
	return ""
}

func (p *place) set(endpoint string) { p.url.Store(&endpoint) }

// locate asks the engine where the project's server is; what was found a moment ago is not asked again.
func (e *Engine) locate(ctx context.Context, p *project, name string) (string, error) {
	place := &p.place
	if err := acquire(ctx, place.turn); err != nil {
		return "", err
	}
	defer func() { <-place.turn }()
	if time.Since(place.asked) < e.limits.again {
		return place.endpoint(), place.failed
	}
	before := place.url.Load()
	found, err := e.list(ctx, name, "")
	if ctx.Err() != nil {
		return "", err // the user is gone, which says nothing of the engine
	}
	place.asked, place.failed = time.Now(), err
	if err != nil {
		return "", err
	}
	endpoint := ""
	for _, c := range found {
		if u := endpointOf(c); u != "" && c.State == container.StateRunning && (endpoint == "" || nameOf(c) == e.name(name)) {
			endpoint = u
		}
	}
	place.url.CompareAndSwap(before, &endpoint) // EnsureServer may know better by now
	return place.endpoint(), nil
}

// buffers are shared by all answers.
var buffers = &bufferPool{}

// bufferPool lends buffers of 32 KiB.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 32<<10)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }
