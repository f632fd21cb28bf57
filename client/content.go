package client

import (
	"errors"
	"io"
	"sync"
)

var errDetached = errors.New("the request is over")

// content is a request's body for one attempt. The HTTP transport may go on reading after an attempt is over; detach
// keeps it away from what the next attempt sends.
type content struct {
	mu    sync.Mutex
	from  io.Reader // nil when detached
	n     int64
	touch func()
	sent  func(int64)
}

// Read implements io.Reader.
func (b *content) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.from == nil {
		return 0, errDetached
	}
	b.touch()
	n, err := b.from.Read(p)
	b.n += int64(n)
	if b.sent != nil && n > 0 {
		b.sent(b.n)
	}
	return n, err
}

// Close implements io.Closer; the content belongs to the caller.
func (b *content) Close() error { return nil }

func (b *content) detach() {
	b.mu.Lock()
	b.from = nil
	b.mu.Unlock()
}

// touching tells when something comes in.
type touching struct {
	io.Reader
	touch func()
}

// Read implements io.Reader.
func (t *touching) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.touch()
	return n, err
}
