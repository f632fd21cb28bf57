package node

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// tlsFirstByte begins every TLS connection: the record type of a handshake.
const tlsFirstByte = 0x16

// sniffer lets one port speak TLS to everybody and plain HTTP to this machine: curl and a local load balancer need no
// certificate, and no token crosses a network in clear. Plain connections from elsewhere are closed.
type sniffer struct {
	net.Listener
	config *tls.Config
	ready  chan net.Conn
	done   chan struct{}
	once   sync.Once
}

func sniff(l net.Listener, config *tls.Config) *sniffer {
	s := &sniffer{Listener: l, config: config, ready: make(chan net.Conn), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *sniffer) run() {
	for {
		conn, err := s.Listener.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			go s.look(conn)
		case errors.As(err, &temporary) && temporary.Temporary():
			time.Sleep(5 * time.Millisecond) // out of descriptors: give others time to close theirs
		default:
			_ = s.Close() // it is closed already
			return
		}
	}
}

// look waits for the first byte, in its own goroutine: a client that says nothing holds up nobody.
func (s *sniffer) look(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // a closed connection fails in Peek
	r := bufio.NewReaderSize(conn, 16)
	first, err := r.Peek(1)
	if err != nil {
		_ = conn.Close() // nothing was said
		return
	}
	_ = conn.SetReadDeadline(time.Time{}) // a closed connection fails in its first read
	var out net.Conn = &peeked{Conn: conn, r: r}
	switch {
	case first[0] == tlsFirstByte:
		out = tls.Server(out, s.config)
	case !loopback(conn.RemoteAddr()):
		_, _ = conn.Write([]byte(plainRefused)) // as a favour, before it is closed
		_ = conn.Close()
		return
	}
	select {
	case s.ready <- out:
	case <-s.done:
		_ = out.Close() // nobody takes it any more
	}
}

const plainBody = `{"error":{"code":"forbidden","message":"plain HTTP is answered to this machine only","hint":"use https with the cluster's CA certificate"}}` + "\n"

var plainRefused = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + plainBody

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// Accept gives the next connection that has shown what it speaks.
func (s *sniffer) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close stops accepting.
func (s *sniffer) Close() error {
	s.once.Do(func() { close(s.done) })
	return s.Listener.Close()
}

// peeked is a connection whose first bytes are in a buffer.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) {
	if p.r != nil && p.r.Buffered() > 0 {
		return p.r.Read(b)
	}
	p.r = nil
	return p.Conn.Read(b)
}
