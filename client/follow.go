package client

import (
	"bufio"
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

// Follow calls fn for everything that happens to a deployment after the log index since (0 for all from its
// beginning) and returns nil when it has come to its end, of which fn was told by an EventEnd. When the connection is
// lost it goes on through another node, without a gap and without telling anything twice. An error of fn ends it and
// is returned.
func (c *Client) Follow(ctx context.Context, deployment string, since uint64, fn func(api.Event) error) error {
	return c.stream(ctx, deploymentPath(deployment)+"/events", nil, since, fn)
}

// Events calls fn for everything that happens to the deployments of a project ("" for all) after the log index since
// (0 for now) until ctx ends or fn returns an error.
func (c *Client) Events(ctx context.Context, project string, since uint64, fn func(api.Event) error) error {
	v := url.Values{}
	setIf(v, "project", project)
	return c.stream(ctx, "/api/events", v, since, fn)
}

// errEnd says that a stream has told all it will ever tell.
var errEnd = errors.New("end of the stream")

// fnError is an error of the caller's own.
type fnError struct{ error }

func (c *Client) stream(ctx context.Context, path string, query url.Values, since uint64, fn func(api.Event) error) error {
	pos := &position{index: since}
	single := query == nil
	broken := 0
	for {
		header := http.Header{"Accept": {api.ContentTypeEvent}}
		if pos.index > 0 {
			header[http.CanonicalHeaderKey(api.HeaderLastEvent)] = []string{strconv.FormatUint(pos.index, 10)}
		}
		a, err := c.ask(ctx, call{method: http.MethodGet, path: path, query: query, header: header})
		if err != nil {
			return err
		}
		before := pos.seen
		err = pos.events(a.body, single, fn)
		a.close()
		var own fnError
		switch {
		case errors.As(err, &own):
			return own.error
		case errors.Is(err, errEnd):
			return nil
		case ctx.Err() != nil:
			return errs.New(errs.Timeout, "following was given up: %w", context.Cause(ctx))
		}
		if broken++; pos.seen > before {
			broken = 1
		}
		c.first.Add(1) // the node broke off: the next one is asked
		if giveUp := 10 * c.patience; backoff(broken)*time.Duration(broken) > giveUp || !sleep(ctx, backoff(broken)) {
			return c.finally(ctx, err)
		}
	}
}

// position is how far a stream has been read.
type position struct {
	index uint64          // everything up to here has been told
	told  map[string]bool // messages after index that have been told, when a connection broke between two of one index
	seen  int
}

// events tells fn the messages of one connection.
func (p *position) events(body io.Reader, single bool, fn func(api.Event) error) error {
	lines := bufio.NewReaderSize(body, 64<<10)
	var id, data []byte
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err // a message that is cut off is not told
		}
		line = bytes.TrimRight(line, "\r\n")
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(line) > 0 && string(name) == "id":
			id = value
		case len(line) > 0 && string(name) == "data":
			data = append(data, value...)
		case len(line) == 0 && len(data) > 0:
			if err := p.tell(id, data, single, fn); err != nil {
				return err
			}
			id, data = nil, nil
		}
	}
}

func (p *position) tell(id, data []byte, single bool, fn func(api.Event) error) error {
	var e api.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return errs.New(errs.Unavailable, "read an event: %w", err)
	}
	key := keyOf(e, data)
	if !p.told[key] {
		if err := fn(e); err != nil {
			return fnError{err}
		}
		p.seen++
	}
	if id == nil {
		if p.told == nil {
			p.told = map[string]bool{}
		}
		p.told[key] = true
	} else if index, err := strconv.ParseUint(string(id), 10, 64); err == nil {
		p.index, p.told = index, nil
	}
	if single && e.Type == api.EventEnd {
		return errEnd
	}
	return nil
}

// keyOf names a message so that it is known again on another connection, where the state beside a line may be newer.
func keyOf(e api.Event, data []byte) string {
	if e.Event == nil {
		return string(data)
	}
	return fmt.Sprintf("%s %+v", e.Deployment, *e.Event)
}
