package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

// server is the API with its state: little more than caches and counters.
type server struct {
	Deps
	origin   *http.CrossOriginProtection
	nodeID   []string      // as a header's value
	boot     string        // begins the request IDs given here
	requests atomic.Uint64 // counts them
	streams  atomic.Int64  // open ones
	uploads  atomic.Int64  // under way
	bodies   bodyCache
	document []byte // the OpenAPI document
}

func newBootID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// engine registers the routes. No gin middleware is used: what every request needs is done by serve.
func (s *server) engine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.RedirectTrailingSlash = false
	e.HandleMethodNotAllowed = true
	e.ForwardedByClientIP = false
	routes := s.routes()
	for i := range routes {
		r := &routes[i]
		h := func(c *gin.Context) { s.serve(c, r) }
		e.Handle(r.method, r.path, h)
		if r.method == http.MethodGet && !r.stream {
			e.Handle(http.MethodHead, r.path, h)
		}
	}
	s.document = document(routes)
	unknown := &route{path: "unknown", open: true, serve: func(_ *server, c *call) error {
		return errs.New(errs.NotFound, "there is nothing at %s", clip(c.Request.URL.Path)).
			WithHint("see GET /api/openapi.json for what there is")
	}}
	wrong := &route{path: "unknown", open: true, serve: func(_ *server, c *call) error {
		return errs.New(errs.MethodNotAllowed, "%s cannot be used on %s", clip(c.Request.Method), clip(c.Request.URL.Path)).
			WithHint("use one of: %s", c.Writer.Header().Get("Allow"))
	}}
	e.NoRoute(func(c *gin.Context) { s.serve(c, unknown) })
	e.NoMethod(func(c *gin.Context) { s.serve(c, wrong) })
	return e
}

// route is one row of the table of routes.
type route struct {
	method string
	path   string // in gin's form
	about  string // one sentence for the OpenAPI document
	query  []string
	open   bool // needs no API token
	stream bool // answers with a stream
	write  bool // takes an Idempotency-Key
	serve  func(s *server, c *call) error
}

// call is one request on its way.
type call struct {
	*gin.Context
	route *route
	id    string
	token *fsm.Token // who asks; nil on open routes
	state *fsm.State // in which token was found
	hash  [32]byte   // of its secret
	query params
	// changes is the JSON body, for telling a repetition from another request; doc is the same as it came.
	changes any
	doc     json.RawMessage
	round   int       // proposals of this request that others' changes came before
	values  [6]string // of headers: one allocation for all of them
	used    int
}

// set sets a header whose name is in its canonical form.
func (c *call) set(h http.Header, name, value string) {
	if c.used == len(c.values) {
		h[name] = []string{value}
		return
	}
	c.values[c.used] = value
	c.used++
	h[name] = c.values[c.used-1 : c.used : c.used]
}

// serve does what every request needs, around the route's own work.
func (s *server) serve(g *gin.Context, r *route) {
	c := &call{Context: g, route: r}
	began := time.Now()
	c.id = s.requestID(g.Request)
	h := g.Writer.Header()
	c.set(h, api.HeaderRequestID, c.id)
	h["X-Content-Type-Options"] = noSniff
	h["Cache-Control"] = noStore
	defer s.finished(c, began)
	if err := s.run(c); err != nil {
		s.fail(c, err)
	}
}

var (
	noSniff = []string{"nosniff"}
	noStore = []string{"no-store"}
)

func (s *server) run(c *call) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		s.Logger.Error("request panicked", "request_id", c.id, "route", c.route.path, "panic", p, "stack", string(debug.Stack()))
		err = errs.New(errs.Internal, "a defect of Kontiki stopped the request").
			WithHint("please report it with the request ID and the node's log")
	}()
	if err := s.admit(c); err != nil {
		return err
	}
	return c.route.serve(s, c)
}

// requestID takes the caller's ID when it is harmless and makes one otherwise.
func (s *server) requestID(r *http.Request) string {
	if id := r.Header.Get(api.HeaderRequestID); id != "" && len(id) <= 64 && harmless(id) {
		return id
	}
	return s.boot + "-" + strconv.FormatUint(s.requests.Add(1), 36)
}

func harmless(id string) bool {
	for _, r := range id {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			return false
		}
	}
	return true
}

// finished logs the request: its route, never its path or query, which may hold what is nobody's business.
func (s *server) finished(c *call, began time.Time) {
	ctx := c.Request.Context()
	if !s.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	s.Logger.DebugContext(ctx, "request", "method", c.Request.Method, "route", c.route.path, "status", c.Writer.Status(),
		"duration", time.Since(began), "request_id", c.id)
}
