package ingress

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

const (
	maxTries   = 3               // instances a request is sent to at most
	patience   = 2 * time.Second // wait for the head of an answer while there is another instance to try
	suspectFor = 3 * time.Second // whoever failed is tried last for so long
)

// States gives views of the committed state; *fsm.FSM is one.
type States interface {
	State() *fsm.State
}

// Local serves the releases of this node.
type Local interface {
	// ServeRelease answers the request with content of exactly that release. It returns an error only when it has
	// written nothing: the release, or its server, is not there. The request's Kontiki-* headers are not the user's.
	ServeRelease(w http.ResponseWriter, r *http.Request, project, deployment string) error
}

// Peers reaches the other nodes.
type Peers interface {
	// Peer gives the base URL of a node's listener between nodes, where its RelayHandler is, and the transport for it,
	// which authenticates both ends; false when the node is not known. Scheme, user and host of the URL are used. The
	// transport should keep connections alive and leave compression alone.
	Peer(node string) (baseURL string, rt http.RoundTripper, ok bool)
}

// Config is what an Ingress needs; all but Logger is required.
type Config struct {
	NodeID string
	States States
	Local  Local
	Peers  Peers
	Logger *slog.Logger // slog.Default when nil
}

// Stats counts since the start of the process.
type Stats struct {
	Requests uint64 // user requests taken
	Unknown  uint64 // of them, for a host that leads nowhere
	Retries  uint64 // times a request was sent to a further instance
	Failures uint64 // requests that no instance answered
	Relayed  uint64 // requests served for other nodes
}

// Ingress routes user traffic on one node.
type Ingress struct {
	cfg      Config
	secret   string // known to this process only: marks the health checks
	patience time.Duration
	turn     atomic.Uint32
	suspects suspects

	requests, unknown, retries, failures, relayed atomic.Uint64
}

// New makes the node's ingress.
func New(cfg Config) *Ingress {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Ingress{cfg: cfg, secret: rand.Text(), patience: patience}
}

// Handler is what listens for user traffic.
func (g *Ingress) Handler() http.Handler { return http.HandlerFunc(g.serve) }

// Stats gives the counters.
func (g *Ingress) Stats() Stats {
	return Stats{Requests: g.requests.Load(), Unknown: g.unknown.Load(), Retries: g.retries.Load(),
		Failures: g.failures.Load(), Relayed: g.relayed.Load()}
}

func (g *Ingress) serve(w http.ResponseWriter, r *http.Request) {
	g.requests.Add(1)
	if r.Method == http.MethodConnect {
		refuse(w, r, errs.New(errs.MethodNotAllowed, "CONNECT is not served here"))
		return
	}
	route, ok := Resolve(g.cfg.States.State(), r.Host)
	if !ok {
		g.unknown.Add(1)
		refuse(w, r, nowhere(r.Host, route))
		return
	}
	if g.isProbe(r) {
		route.Instances, route.Ready = []string{g.cfg.NodeID}, 1
	}
	g.dispatch(w, userRequest(r), route)
}

// isProbe reports whether the request is this process's own health check, which is for this node's instance only.
func (g *Ingress) isProbe(r *http.Request) bool {
	got := r.Header.Get(headerProbe)
	return got != "" && subtle.ConstantTimeCompare([]byte(got), []byte(g.secret)) == 1
}

// dispatch has one of the instances answer.
func (g *Ingress) dispatch(w http.ResponseWriter, r *http.Request, route Route) {
	var failures []error
	nodes := g.order(route)
	tries, most := 0, maxTries
	if !repeatable(r) {
		most = 1
	}
	for i, node := range nodes {
		if tries == most {
			break
		}
		if tries++; tries > 1 {
			g.retries.Add(1)
		}
		limit := g.patience
		if tries == most || i == len(nodes)-1 {
			limit = 0
		}
		err := g.attempt(w, r, attempt{Route: route, node: node, limit: limit})
		if err == nil {
			return
		}
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // the user is gone; an empty 200 must not be sent in place of an answer
		}
		if errors.Is(err, errUnsent) {
			tries--
		}
		failures = append(failures, err)
	}
	g.fail(w, r, route, errors.Join(failures...))
}

// repeatable reports whether the request can be sent twice without harm.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.ContentLength == 0 && (r.Body == nil || r.Body == http.NoBody)
	}
	return false
}

// attempt is one try of a request on one node.
type attempt struct {
	Route
	node  string
	limit time.Duration // wait for the head of the answer, 0 for no limit of its own
}

// attempt answers through the node, or returns an error with nothing written.
func (g *Ingress) attempt(w http.ResponseWriter, r *http.Request, a attempt) error {
	who := suspect{node: a.node, deployment: a.Deployment}
	var err error
	if a.node == g.cfg.NodeID {
		err = g.serveLocal(w, r, a.Project, a.Deployment)
	} else {
		if err = g.forward(w, r, a); !errors.Is(err, errNotHere) {
			who.deployment = ""
		}
	}
	if err != nil && !errors.Is(r.Context().Err(), context.Canceled) {
		g.suspects.add(who, time.Now().Add(suspectFor))
	}
	return err
}

// serveLocal answers with this node's instance. With an error the answer's headers are as they were before.
func (g *Ingress) serveLocal(w http.ResponseWriter, r *http.Request, project, deployment string) error {
	h := w.Header()
	before := maps.Clone(h)
	h.Set(HeaderRelease, deployment)
	h.Set(HeaderNode, g.cfg.NodeID)
	err := g.cfg.Local.ServeRelease(w, r, project, deployment)
	if err != nil {
		clear(h)
		maps.Copy(h, before)
	}
	return err
}

// fail answers a request that no instance answered.
func (g *Ingress) fail(w http.ResponseWriter, r *http.Request, route Route, cause error) {
	g.failures.Add(1)
	e := errs.New(errs.Unavailable, "none of the %d instances of project %q answers at the moment", len(route.Instances), route.Project).
		WithHint("try again in a moment")
	id := refuse(w, r, e)
	g.cfg.Logger.Warn("no instance answers", "project", route.Project, "deployment", route.Deployment,
		"node", g.cfg.NodeID, "instances", route.Instances, "request_id", id, "error", cause)
}
