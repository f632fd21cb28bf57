package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"kontiki/api"
	"kontiki/errs"
)

// slowest is how many bytes a second a node is given to pass an upload on to the others before it answers.
const slowest = 4 << 20

// maxAnswer bounds what is read of an answer that is no stream.
const maxAnswer = 64 << 20

// call is one request, whichever node it is sent to.
type call struct {
	method string
	path   string // escaped, below the node's own
	query  url.Values
	header http.Header
	body   io.ReadSeeker // nil for none; sent again from its start when another node is asked
	size   int64         // of the body
	sent   func(int64)   // told how much of the body was sent, may be nil
}

// get asks and decodes the answer.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	err := c.do(ctx, call{method: http.MethodGet, path: path, query: query}, &out)
	return out, err
}

// send writes under an idempotency key, with in as JSON (nil for no body), and decodes the answer.
func send[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	k := call{method: method, path: path, header: http.Header{api.HeaderKey: {keyFor(ctx)}}}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return out, errs.New(errs.Invalid, "encode the request: %w", err)
		}
		k.body, k.size = bytes.NewReader(b), int64(len(b))
		k.header.Set("Content-Type", api.ContentTypeJSON)
	}
	err := c.do(ctx, k, &out)
	return out, err
}

// remove deletes under an idempotency key.
func (c *Client) remove(ctx context.Context, path string) error {
	header := http.Header{api.HeaderKey: {keyFor(ctx)}}
	return c.do(ctx, call{method: http.MethodDelete, path: path, header: header}, nil)
}

// do asks and decodes the answer into out (nil for none).
func (c *Client) do(ctx context.Context, k call, out any) error {
	a, err := c.ask(ctx, k)
	if err != nil {
		return err
	}
	defer a.close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(a.body, maxAnswer)).Decode(out); err != nil {
		return errs.New(errs.Unavailable, "read the answer of %s: %w", a.node.Host, err).
			WithHint("is it a Kontiki node, and of this version?")
	}
	return nil
}

// ask sends the call to one node after the other until one has an answer that asking again could not better.
func (c *Client) ask(ctx context.Context, k call) (*answer, error) {
	first := int(c.first.Load())
	var giveUp time.Time
	for try := 0; ; try++ {
		at := (first + try) % len(c.nodes)
		a, err := c.attempt(ctx, k, c.nodes[at])
		if err == nil {
			c.first.Store(uint32(at))
			return a, nil
		}
		var again retryable
		if !errors.As(err, &again) {
			return nil, err
		}
		if giveUp.IsZero() {
			giveUp = time.Now().Add(c.patience)
		}
		if round := (try + 1) / len(c.nodes); (try+1)%len(c.nodes) == 0 {
			if wait := backoff(round); time.Now().Add(wait).After(giveUp) || !sleep(ctx, wait) {
				return nil, c.finally(ctx, again.error)
			}
		}
		if ctx.Err() != nil || time.Now().After(giveUp) {
			return nil, c.finally(ctx, again.error)
		}
	}
}

// finally says why the client gives up: what a node answered, or that none did.
func (c *Client) finally(ctx context.Context, last error) error {
	var e *errs.Error
	if errors.As(last, &e) {
		return e
	}
	if ctx.Err() != nil {
		return errs.New(errs.Timeout, "the request was given up: %w", context.Cause(ctx)).WithHint("last error: %v", last)
	}
	return c.unreachable(last)
}

// retryable marks an error after which the next node is asked.
type retryable struct{ error }

// Unwrap gives the error itself.
func (r retryable) Unwrap() error { return r.error }

// backoff is the pause after a round in which no node could answer: an election takes a few tenths of a second.
func backoff(round int) time.Duration {
	return min(50*time.Millisecond<<min(round-1, 5), time.Second)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// answer is a node's answer below 400; its body must be closed.
type answer struct {
	node  *url.URL
	body  io.Reader
	close func()
}

// attempt asks one node.
func (c *Client) attempt(ctx context.Context, k call, node *url.URL) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	idle := c.idle + time.Duration(k.size/slowest)*time.Second
	alive := time.AfterFunc(idle, func() {
		cancel(fmt.Errorf("no sign of life from %s for %s", node.Host, idle))
	})
	touch := func() { alive.Reset(idle) }
	stop := func() { alive.Stop(); cancel(nil) }
	req, upload, err := c.request(ctx, k, node, touch)
	if err != nil {
		stop()
		return nil, err
	}
	res, err := c.http.Do(req)
	if upload != nil {
		upload.detach() // the transport may still read it, but the next attempt owns the content
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		stop()
		return nil, retryable{fmt.Errorf("ask %s: %w", node.Host, err)}
	}
	touch()
	done := func() { _ = res.Body.Close(); stop() }
	if index, err := strconv.ParseUint(res.Header.Get(api.HeaderIndex), 10, 64); err == nil {
		c.Observe(index)
	}
	if res.StatusCode >= 300 {
		defer done()
		return nil, refusal(res, node)
	}
	return &answer{node: node, body: &touching{res.Body, touch}, close: done}, nil
}

func (c *Client) request(ctx context.Context, k call, node *url.URL, touch func()) (*http.Request, *content, error) {
	target := node.String() + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, nil)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "make the request: %w", err)
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if index := c.index.Load(); index > 0 {
		req.Header.Set(api.HeaderMinIndex, strconv.FormatUint(index, 10))
	}
	if k.body == nil {
		return req, nil, nil
	}
	if _, err := k.body.Seek(0, io.SeekStart); err != nil {
		return nil, nil, errs.New(errs.Invalid, "go back to the start of the content: %w", err)
	}
	body := &content{from: k.body, touch: touch, sent: k.sent}
	req.ContentLength = k.size
	if k.size > 0 {
		req.Body = body
	}
	return req, body, nil
}

// refusal turns an answer that is no success into the error it carries.
func refusal(res *http.Response, node *url.URL) error {
	var body api.ErrorBody
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20)) // a broken body is as good as one in another format
	if err := json.Unmarshal(b, &body); err != nil || body.Error.Code == "" {
		e := errs.New(errs.Unavailable, "%s answers %s without an error Kontiki knows", node.Host, res.Status).
			WithHint("is it a Kontiki node?")
		return maybeAgain(res.StatusCode, e)
	}
	return maybeAgain(res.StatusCode, &body.Error.Error)
}

func maybeAgain(status int, e *errs.Error) error {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusMisdirectedRequest:
		return retryable{e}
	}
	return e
}
