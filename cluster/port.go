package cluster

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"kontiki/errs"
	"kontiki/pki"
)

const (
	protoRaft = "kontiki-raft/1"
	protoHTTP = "http/1.1"
	// handshakeTime bounds what a connection may take before it has shown who it is.
	handshakeTime = 5 * time.Second
)

// PortConfig is what NewPort needs.
type PortConfig struct {
	// Bind is the host:port to listen on; Advertise, when set, the one peers are told to dial.
	Bind, Advertise string
	// Bundle is the node's identity.
	Bundle *pki.Bundle
	// Authorize is asked before a connection is used, in both directions; its error refuses the node. It is where
	// removed nodes are turned away (errs.RemovedPeer). nil allows every node of the cluster.
	Authorize func(nodeID string) error
	Logger    *slog.Logger
}

// Port is the cluster address of a node: one listener with mutual TLS, on which ALPN tells Raft from HTTP.
type Port struct {
	cfg      PortConfig
	listener net.Listener
	addr     string
	raft     *raftPort
	http     *acceptQueue
	client   *peerClient
	done     sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc
}

// NewPort listens at once, so that a taken port is known before anything else has started.
func NewPort(cfg PortConfig) (*Port, error) {
	listener, err := net.Listen("tcp", cfg.Bind)
	if err != nil {
		return nil, errs.New(errs.Invalid, "listen for peers on %s: %w", cfg.Bind, err).WithField("cluster_addr").
			WithHint("another process may use the port: choose another one")
	}
	if cfg.Authorize == nil {
		cfg.Authorize = func(string) error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Port{cfg: cfg, listener: listener, addr: cmp.Or(cfg.Advertise, listener.Addr().String())}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	local := streamAddr(serverAddress(cfg.Bundle.ID(), p.addr))
	p.raft = &raftPort{acceptQueue: newAcceptQueue(local), port: p, open: map[*raftConn]struct{}{}}
	p.http = newAcceptQueue(listener.Addr())
	p.client = newPeerClient(func(ctx context.Context, id, addr string) (net.Conn, error) {
		return p.dial(ctx, id, addr, protoHTTP)
	})
	p.done.Go(p.accept)
	return p, nil
}

// Addr gives the address peers dial.
func (p *Port) Addr() string { return p.addr }

// Raft gives Raft's side of the port.
func (p *Port) Raft() raft.StreamLayer { return p.raft }

// HTTP gives the listener of node-to-node HTTP; its connections are *tls.Conn with the handshake done.
func (p *Port) HTTP() net.Listener { return p.http }

// Client gives the client for peers. It sets no deadline of its own.
func (p *Port) Client() *http.Client { return &http.Client{Transport: p.client} }

// Close stops listening and closes every Raft connection and every unused HTTP one, and waits for its goroutines.
func (p *Port) Close() error {
	p.cancel()
	err := p.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	err = errors.Join(err, p.raft.Close(), p.http.Close())
	p.done.Wait()
	p.client.CloseIdleConnections()
	return err
}

// Disconnect closes the Raft connections from and to a node: one that has just been removed is cut off at once.
func (p *Port) Disconnect(nodeID string) {
	p.raft.closeIf(func(c *raftConn) bool { return c.peer == nodeID })
}

func (p *Port) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			p.cfg.Logger.Warn("accept from peer", "err", err)
			select { // out of file descriptors, most likely: leave others time to close theirs
			case <-time.After(10 * time.Millisecond):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		p.done.Go(func() { p.welcome(conn) })
	}
}

// welcome finds out who is there and what it speaks, and hands the connection on.
func (p *Port) welcome(raw net.Conn) {
	conn := tls.Server(raw, p.cfg.Bundle.ServerTLS(protoRaft, protoHTTP))
	ctx, cancel := context.WithTimeout(p.ctx, handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		p.cfg.Logger.Info("refused a connection", "remote", raw.RemoteAddr().String(), "err", err)
		p.drop(conn)
		return
	}
	state := conn.ConnectionState()
	peer := pki.NodeID(state)
	if err := p.cfg.Authorize(peer); err != nil {
		p.cfg.Logger.Info("refused a node", "peer", peer, "err", err)
		if state.NegotiatedProtocol == protoHTTP {
			p.explain(conn, err)
		}
		p.drop(conn)
		return
	}
	switch state.NegotiatedProtocol {
	case protoRaft:
		p.raft.offer(p.raft.track(conn, peer))
	case protoHTTP:
		p.http.offer(conn)
	default: // a client that offers no protocol at all
		p.drop(conn)
	}
}

// explain answers a refused node's first request, so that it can tell its operator why.
func (p *Port) explain(conn net.Conn, refusal error) {
	e := errs.From(refusal)
	body, err := json.Marshal(answer{Error: e})
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(handshakeTime))
	}
	var r *http.Request
	if err == nil { // an answer before the question would be thrown away
		r, err = http.ReadRequest(bufio.NewReader(conn))
	}
	if err == nil {
		resp := http.Response{
			StatusCode: errs.Status(e.Code), ProtoMajor: 1, ProtoMinor: 1, Request: r, Close: true,
			Header:        http.Header{"Content-Type": {"application/json"}},
			ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
		}
		err = resp.Write(conn)
	}
	if err != nil {
		p.cfg.Logger.Debug("explain a refusal", "err", err)
	}
}

// drop closes a connection whose end nobody waits for.
func (p *Port) drop(conn net.Conn) {
	if err := conn.Close(); err != nil {
		p.cfg.Logger.Debug("close connection", "err", err)
	}
}

func (p *Port) dial(ctx context.Context, id, addr, proto string) (net.Conn, error) {
	if id != "" {
		if err := p.cfg.Authorize(id); err != nil {
			return nil, err
		}
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: handshakeTime}, Config: p.cfg.Bundle.ClientTLS(id, proto)}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial node %s at %s: %w", id, addr, err)
	}
	return conn, nil
}

// acceptQueue is a net.Listener fed by another one.
type acceptQueue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newAcceptQueue(addr net.Addr) *acceptQueue {
	return &acceptQueue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// offer blocks until somebody accepts conn; when nobody will any more it closes it.
func (q *acceptQueue) offer(conn net.Conn) {
	select {
	case q.conns <- conn:
	case <-q.done:
		_ = conn.Close() // nobody is left to tell
	}
}

// Accept implements net.Listener.
func (q *acceptQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; it is idempotent.
func (q *acceptQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr implements net.Listener.
func (q *acceptQueue) Addr() net.Addr { return q.addr }

// raftPort is the raft.StreamLayer of a Port. It knows its connections, because Raft's transport leaves those it has
// accepted open when it closes.
type raftPort struct {
	*acceptQueue
	port *Port

	mu   sync.Mutex
	open map[*raftConn]struct{}
	shut bool
}

// raftConn is a connection that raftPort knows.
type raftConn struct {
	net.Conn
	peer string
	of   *raftPort
}

// Close implements net.Conn.
func (c *raftConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// Dial implements raft.StreamLayer for addresses made by serverAddress.
func (r *raftPort) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.port.ctx, timeout)
	defer cancel()
	id, addr := splitAddress(address)
	conn, err := r.port.dial(ctx, id, addr, protoRaft)
	if err != nil {
		return nil, err
	}
	return r.track(conn, id), nil
}

func (r *raftPort) track(conn net.Conn, peer string) net.Conn {
	c := &raftConn{Conn: conn, peer: peer, of: r}
	r.mu.Lock()
	shut := r.shut
	r.open[c] = struct{}{}
	r.mu.Unlock()
	if shut {
		_ = c.Close() // whoever gets it finds it closed
	}
	return c
}

// Close implements net.Listener and closes the connections too.
func (r *raftPort) Close() error {
	r.mu.Lock()
	r.shut = true
	r.mu.Unlock()
	r.closeIf(func(*raftConn) bool { return true })
	return r.acceptQueue.Close()
}

func (r *raftPort) closeIf(which func(*raftConn) bool) {
	r.mu.Lock()
	var closing []*raftConn
	for c := range r.open {
		if which(c) {
			closing = append(closing, c)
		}
	}
	r.mu.Unlock()
	for _, c := range closing {
		_ = c.Conn.Close() // the goroutine that uses it sees the error and closes it for good
		r.mu.Lock()
		delete(r.open, c)
		r.mu.Unlock()
	}
}
