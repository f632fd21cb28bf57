package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

// fail answers with an error, in the one format, unless an answer has begun.
func (s *server) fail(c *call, err error) {
	switch {
	case errors.Is(err, context.DeadlineExceeded) && errs.CodeOf(err) == errs.Internal:
		err = errs.New(errs.Timeout, "the cluster did not answer in time: %w", err).
			WithHint("try again under the same Idempotency-Key")
	case errors.Is(err, context.Canceled) && errs.CodeOf(err) == errs.Internal:
		err = errs.New(errs.Unavailable, "the request was given up: %w", err).WithHint("try again under the same Idempotency-Key")
	}
	e := errs.From(err)
	status := errs.Status(e.Code)
	if e.Code == errs.Internal {
		s.Logger.Error("request failed", "request_id", c.id, "route", c.route.path, "error", err)
		e = errs.New(errs.Internal, "%s", e.Message).WithHint("the node's log has more under the request ID")
	}
	if c.Writer.Written() {
		return
	}
	h := c.Writer.Header()
	switch status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", "5")
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	}
	if c.Request.ContentLength != 0 {
		c.readWithin(readRest) // net/http reads on, to keep the connection
	}
	body, merr := json.Marshal(api.ErrorBody{Error: api.Error{Error: *e, RequestID: c.id}})
	if merr != nil {
		s.Logger.Error("error cannot be encoded", "request_id", c.id, "error", merr)
	}
	c.send(status, body)
}

var typeJSON = []string{"application/json; charset=utf-8"}

// send answers with encoded JSON.
func (c *call) send(status int, body []byte) {
	h := c.Writer.Header()
	h["Content-Type"] = typeJSON
	c.set(h, "Content-Length", strconv.Itoa(len(body)))
	c.Writer.WriteHeader(status)
	_, _ = c.Writer.Write(body) // an error here means that nobody listens any more
}

// reply answers with a value as JSON.
func (c *call) reply(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return errs.New(errs.Internal, "encode the answer: %w", err)
	}
	c.send(status, body)
	return nil
}

// empty answers a request that leaves nothing to say.
func (c *call) empty() error {
	c.Writer.WriteHeader(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// object answers a read with a committed object. Such objects never change, a change makes a new one: what was encoded is
// encoded for good.
func object[T any](s *server, c *call, o *T) error {
	body, ok := s.bodies.get(o)
	if !ok {
		var err error
		if body, err = json.Marshal(o); err != nil {
			return errs.New(errs.Internal, "encode the answer: %w", err)
		}
		s.bodies.put(o, body)
	}
	c.send(http.StatusOK, body)
	return nil
}

// maxCached bounds the bytes of each of the cache's two generations.
const maxCached = 8 << 20

// bodyCache remembers the JSON of committed objects by their address. What is used stays, in two generations.
type bodyCache struct {
	mu    sync.RWMutex
	young map[any][]byte
	old   map[any][]byte
	size  int // bytes in young
}

func (b *bodyCache) get(o any) ([]byte, bool) {
	b.mu.RLock()
	body, ok := b.young[o]
	if ok {
		b.mu.RUnlock()
		return body, true
	}
	body, ok = b.old[o]
	b.mu.RUnlock()
	if ok {
		b.put(o, body)
	}
	return body, ok
}

func (b *bodyCache) put(o any, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size += len(body); b.young == nil || b.size > maxCached {
		b.old, b.young, b.size = b.young, map[any][]byte{}, len(body)
	}
	b.young[o] = body
}

// view gives the state a read is answered from, as fresh as the request asks for.
func (s *server) view(c *call) (*fsm.State, error) {
	consistent, err := c.query.flag(paramConsistent)
	if err != nil {
		return nil, err
	}
	if err := s.waitForMinIndex(c); err != nil {
		return nil, err
	}
	state := c.state
	if consistent {
		if err := s.catchUp(c); err != nil {
			return nil, err
		}
	}
	if consistent || c.Request.Header.Get(api.HeaderMinIndex) != "" {
		state = s.Replica.State()
	}
	s.stamp(c, state.Index)
	return state, nil
}

// stamp says what an answer reflects.
func (s *server) stamp(c *call, index uint64) {
	h := c.Writer.Header()
	c.set(h, api.HeaderIndex, strconv.FormatUint(index, 10))
	h[api.HeaderNode] = s.nodeID
	leader, ago := s.Node.Leader()
	if leader != "" {
		c.set(h, api.HeaderLeader, leader)
	}
	c.set(h, api.HeaderStale, strconv.FormatInt(ago.Milliseconds(), 10))
}

// waitForMinIndex waits until this node has applied what the request has seen elsewhere.
func (s *server) waitForMinIndex(c *call) error {
	text := c.Request.Header.Get(api.HeaderMinIndex)
	if text == "" {
		return nil
	}
	index, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return errs.New(errs.Invalid, "%s is %q", api.HeaderMinIndex, clip(text)).WithField(api.HeaderMinIndex).
			WithHint("send back the number of an earlier answer's %s", api.HeaderIndex)
	}
	return s.waitFor(c, index)
}

func (s *server) waitFor(c *call, index uint64) error {
	if s.Replica.State().Index >= index {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), waitForIndex)
	defer cancel()
	if err := s.Replica.Wait(ctx, index); err != nil {
		return errs.New(errs.Timeout, "this node did not reach log index %d within %s: %w", index, waitForIndex, err).
			WithHint("ask another node, or try again")
	}
	return nil
}

// catchUp makes this node's state at least as new as everything acknowledged before the request.
func (s *server) catchUp(c *call) error {
	ctx, cancel := context.WithTimeout(c.Request.Context(), waitForIndex)
	defer cancel()
	index, err := s.Replica.ReadIndex(ctx)
	if err != nil {
		return err
	}
	if err := s.Replica.Wait(ctx, index); err != nil {
		return errs.New(errs.Timeout, "this node did not reach log index %d within %s: %w", index, waitForIndex, err).
			WithHint("ask another node, or try again")
	}
	return nil
}

// How long a body may take: one of JSON, and what is left of one that is refused.
const (
	readJSON = 30 * time.Second
	readRest = 5 * time.Second
)

// readWithin bounds the reading of this request's body. An error means that the connection has no deadlines.
func (c *call) readWithin(d time.Duration) {
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(d))
}

// extend gives a long request time to go on: the server's own limits are for short ones. An error means that the
// connection has no deadlines, which is as good.
func (c *call) extend(read, write time.Time) {
	rc := http.NewResponseController(c.Writer)
	_ = rc.SetReadDeadline(read)
	_ = rc.SetWriteDeadline(write)
}
