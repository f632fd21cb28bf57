package cluster

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// memoryConn is one end of a connection in a MemoryNetwork.
type memoryConn struct {
	owner   *MemoryNode
	in, out *memoryStream
}

// memoryStream is one direction. What is written waits here until the network lets the reader have it; there is no
// limit to it, since every user of the network has deadlines and gives a silent connection up.
type memoryStream struct {
	net      *MemoryNetwork
	from, to string

	mu         sync.Mutex
	buf        []byte
	ended      bool          // the writer has closed: the reader sees it after the data
	broken     bool          // the reader has closed
	deadline   time.Time     // of reads
	changed    chan struct{} // closed and replaced when one of these changes
	writeLimit time.Time     // writes fail after it; they never wait
}

func newMemoryConns(a, b *MemoryNode) (*memoryConn, *memoryConn) {
	stream := func(from, to *MemoryNode) *memoryStream {
		return &memoryStream{net: a.net, from: from.id, to: to.id, changed: make(chan struct{})}
	}
	there, back := stream(a, b), stream(b, a)
	return &memoryConn{owner: a, in: back, out: there}, &memoryConn{owner: b, in: there, out: back}
}

func (s *memoryStream) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Read implements net.Conn.
func (c *memoryConn) Read(p []byte) (int, error) {
	s := c.in
	for {
		open, healed := s.net.reach(s.from, s.to)
		s.mu.Lock()
		changed, deadline := s.changed, s.deadline
		switch {
		case s.broken:
			s.mu.Unlock()
			return 0, net.ErrClosed
		case !deadline.IsZero() && !time.Now().Before(deadline):
			s.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case open && len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			s.mu.Unlock()
			return n, nil
		case open && s.ended:
			s.mu.Unlock()
			return 0, io.EOF
		}
		s.mu.Unlock()
		waitChange(changed, healed, deadline)
	}
}

func waitChange(changed, healed <-chan struct{}, deadline time.Time) {
	var expired <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-changed:
	case <-healed:
	case <-expired:
	}
}

// Write implements net.Conn.
func (c *memoryConn) Write(p []byte) (int, error) {
	s := c.out
	s.mu.Lock()
	closed := s.ended || s.broken
	late := !s.writeLimit.IsZero() && !time.Now().Before(s.writeLimit)
	s.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	if late {
		return 0, os.ErrDeadlineExceeded
	}
	s.update(func() { s.buf = append(s.buf, p...) })
	return len(p), nil
}

// Close implements net.Conn; it cannot fail.
func (c *memoryConn) Close() error {
	c.in.update(func() { c.in.broken = true })
	c.out.update(func() { c.out.ended = true })
	c.owner.forget(c)
	return nil
}

// LocalAddr implements net.Conn.
func (c *memoryConn) LocalAddr() net.Addr { return streamAddr(c.out.from) }

// RemoteAddr implements net.Conn.
func (c *memoryConn) RemoteAddr() net.Addr { return streamAddr(c.out.to) }

// SetDeadline implements net.Conn.
func (c *memoryConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t) // cannot fail
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.deadline = t })
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *memoryConn) SetWriteDeadline(t time.Time) error {
	c.out.update(func() { c.out.writeLimit = t })
	return nil
}
