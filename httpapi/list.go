package httpapi

import (
	"encoding/base64"
	"net/http"
	"strings"

	"kontiki/api"
	"kontiki/errs"
)

const (
	defaultLimit = 50
	maxLimit     = 200
)

// listing is the part of a list that is asked for.
type listing struct {
	kind  string // of the list: a cursor of another one is refused
	limit int
	after string // where the part before ended, "" at the beginning
}

func (c *call) listing(kind string) (listing, error) {
	l := listing{kind: kind}
	var err error
	if l.limit, err = c.query.number("limit", defaultLimit, 1, maxLimit); err != nil {
		return l, err
	}
	cursor, ok := c.query["cursor"]
	if !ok {
		return l, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	after, ours := strings.CutPrefix(string(b), kind+":")
	if err != nil || !ours || after == "" || !printable(after) {
		return l, errs.New(errs.Invalid, "the cursor is not one of this list").WithField("cursor").
			WithHint("send next_cursor of the part before, or none")
	}
	l.after = after
	return l, nil
}

// page collects one part of a list: add is called with each item in order until it says that the part is full.
type page[T any] struct {
	listing
	items []T
	last  string // cursor of the last item
	more  bool
}

// add takes an item, whose place in the list is at; it reports whether to go on.
func (p *page[T]) add(item T, at string) bool {
	if len(p.items) == p.limit {
		p.more = true
		return false
	}
	p.items = append(p.items, item)
	p.last = at
	return true
}

// answer sends the part.
func (p *page[T]) answer(c *call) error {
	out := api.Page[T]{Items: p.items}
	if out.Items == nil {
		out.Items = []T{}
	}
	if p.more {
		out.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(p.kind + ":" + p.last))
	}
	return c.reply(http.StatusOK, out)
}
