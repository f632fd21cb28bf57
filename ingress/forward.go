package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// The headers of Kontiki's own. Answers carry HeaderRelease and HeaderNode; the others travel between nodes only, and
// none is taken from a user.
const (
	HeaderRelease = "Kontiki-Release" // ID of the deployment that answers, or that is asked for between nodes
	HeaderNode    = "Kontiki-Node"    // ID of the node that answers

	headerPrefix  = "Kontiki-"
	headerProject = "Kontiki-Project" // the release's project
	headerHost    = "Kontiki-Host"    // the host the user asked for; marks a relayed request
	headerNotHere = "Kontiki-Not-Here"
	headerProbe   = "Kontiki-Probe"
)

var (
	errUnsent  = errors.New("nothing was sent")
	errNotHere = errors.New("the release is not there")
	errSlow    = errors.New("no answer in time")
)

// userRequest gives the request without headers that only nodes may set, and with the X-Forwarded ones set by us. The
// argument is left as it is.
func userRequest(r *http.Request) *http.Request {
	out := withHeader(r, withoutOwn(r.Header))
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	out.Header.Del("Forwarded")
	out.Header.Set("X-Forwarded-For", client)
	out.Header.Set("X-Forwarded-Host", r.Host)
	out.Header.Set("X-Forwarded-Proto", proto)
	return out
}

func withHeader(r *http.Request, h http.Header) *http.Request {
	out := r.WithContext(r.Context())
	out.Header = h
	return out
}

// withoutOwn gives a copy of the headers without Kontiki's. The values are shared: they are replaced, never changed.
func withoutOwn(h http.Header) http.Header {
	c := maps.Clone(h)
	if c == nil {
		return http.Header{}
	}
	maps.DeleteFunc(c, func(name string, _ []string) bool {
		return len(name) >= len(headerPrefix) && strings.EqualFold(name[:len(headerPrefix)], headerPrefix)
	})
	return c
}

// forward answers through another node.
func (g *Ingress) forward(w http.ResponseWriter, r *http.Request, a attempt) error {
	base, transport, ok := g.cfg.Peers.Peer(a.node)
	if !ok {
		return fmt.Errorf("node %q is not known: %w", a.node, errUnsent)
	}
	target, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("address of node %q: %w: %w", a.node, errUnsent, err)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var slow *time.Timer
	if a.limit > 0 {
		slow = time.AfterFunc(a.limit, func() { cancel(errSlow) })
		defer slow.Stop()
	}
	proxy := httputil.ReverseProxy{
		Rewrite:    func(pr *httputil.ProxyRequest) { address(pr, target, a.Route) },
		Transport:  transport,
		BufferPool: buffers,
		ErrorLog:   slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
		ModifyResponse: func(res *http.Response) error {
			if slow != nil && !slow.Stop() {
				return errSlow
			}
			return checkRelayed(res, a)
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, failed error) { err = failed },
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
	if err != nil && errors.Is(context.Cause(ctx), errSlow) {
		err = errSlow
	}
	if err != nil {
		return fmt.Errorf("relay to node %q: %w", a.node, err)
	}
	return nil
}

// address makes the user's request one for the node's relay: the same path and query, the route and the host in
// headers.
func address(pr *httputil.ProxyRequest, target *url.URL, route Route) {
	out := pr.Out
	out.URL.Scheme, out.URL.User, out.URL.Host, out.Host = target.Scheme, target.User, target.Host, target.Host
	out.URL.RawQuery = pr.In.URL.RawQuery
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		out.Header[name] = pr.In.Header[name]
	}
	out.Header.Set(headerProject, route.Project)
	out.Header.Set(HeaderRelease, route.Deployment)
	out.Header.Set(headerHost, pr.In.Host)
}

// checkRelayed takes an answer of the node's relay only when the release itself gave it.
func checkRelayed(res *http.Response, a attempt) error {
	if res.Header.Get(headerNotHere) != "" {
		return errNotHere
	}
	if got := res.Header.Get(HeaderRelease); got != a.Deployment {
		return fmt.Errorf("asked for release %s, answered by %q: %w", a.Deployment, got, errNotHere)
	}
	res.Header = withoutOwn(res.Header)
	res.Header.Set(HeaderRelease, a.Deployment)
	res.Header.Set(HeaderNode, a.node)
	return nil
}

// IsRelayed reports whether a request on the listener between nodes is for the RelayHandler. Relayed requests keep the
// user's path, so they are told apart by header and must be looked at before any path is.
func IsRelayed(r *http.Request) bool { return r.Header.Get(headerHost) != "" }

// RelayHandler answers the requests that other nodes' ingresses relay here, with this node's instances only: a request
// is never relayed twice. It trusts the headers and must be served to authenticated nodes alone.
func (g *Ingress) RelayHandler() http.Handler { return http.HandlerFunc(g.relay) }

func (g *Ingress) relay(w http.ResponseWriter, r *http.Request) {
	g.relayed.Add(1)
	project, deployment, host := r.Header.Get(headerProject), r.Header.Get(HeaderRelease), r.Header.Get(headerHost)
	if fsm.CheckName("project", project) != nil || !fsm.ValidID(deployment) || host == "" {
		refuse(w, r, errs.New(errs.Invalid, "a relayed request names project, release and host").
			WithHint("bring all nodes to one version of kontiki"))
		return
	}
	out := withHeader(r, withoutOwn(r.Header))
	out.Host = host
	if err := g.serveLocal(w, out, project, deployment); err != nil {
		w.Header().Set(headerNotHere, deployment)
		refuse(w, r, errs.New(errs.Unavailable, "release %s of project %q is not served on node %q: %w", deployment, project, g.cfg.NodeID, err))
	}
}

// buffers are shared by all proxied answers.
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
