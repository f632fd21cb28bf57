package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// MemoryNetwork connects any number of nodes inside one process, with the habits of TCP: while a direction between
// two nodes is cut nothing that way arrives, neither data nor the end of a connection, and what was sent arrives when
// it heals. It is meant for tests, in testing/synctest bubbles too: nothing in it uses real sockets or time.
type MemoryNetwork struct {
	mu      sync.Mutex
	nodes   map[string]*MemoryNode // by ID, which is the address too
	cut     map[[2]string]bool     // from, to
	changed chan struct{}          // closed and replaced when cut or nodes change
}

// NewMemoryNetwork makes a network without nodes.
func NewMemoryNetwork() *MemoryNetwork {
	return &MemoryNetwork{nodes: map[string]*MemoryNode{}, cut: map[[2]string]bool{}, changed: make(chan struct{})}
}

// Node gives a node its place in the network; its address is its ID. A node that was closed takes its place again by
// another call.
func (m *MemoryNetwork) Node(id string) *MemoryNode {
	n := &MemoryNode{id: id, net: m, http: newAcceptQueue(streamAddr(id)), open: map[*memoryConn]struct{}{}}
	n.raft = &memoryRaft{acceptQueue: newAcceptQueue(streamAddr(serverAddress(id, id))), node: n}
	n.client = newPeerClient(func(ctx context.Context, peer, addr string) (net.Conn, error) {
		return n.dial(ctx, addr, protoHTTP)
	})
	n.ctx, n.cancel = context.WithCancel(context.Background())
	m.update(func() { m.nodes[id] = n })
	return n
}

// Cut stops everything from one node to another, in that direction only.
func (m *MemoryNetwork) Cut(from, to string) { m.update(func() { m.cut[[2]string{from, to}] = true }) }

// Isolate cuts a node off from all others, both ways.
func (m *MemoryNetwork) Isolate(id string) {
	m.update(func() {
		for other := range m.nodes {
			if other != id {
				m.cut[[2]string{id, other}], m.cut[[2]string{other, id}] = true, true
			}
		}
	})
}

// Partition cuts the given nodes, which go on reaching each other, off from all others.
func (m *MemoryNetwork) Partition(ids ...string) {
	inside := map[string]bool{}
	for _, id := range ids {
		inside[id] = true
	}
	m.update(func() {
		for a := range m.nodes {
			for b := range m.nodes {
				if inside[a] != inside[b] {
					m.cut[[2]string{a, b}] = true
				}
			}
		}
	})
}

// Heal ends every cut.
func (m *MemoryNetwork) Heal() { m.update(func() { clear(m.cut) }) }

func (m *MemoryNetwork) update(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	close(m.changed)
	m.changed = make(chan struct{})
}

// reach says whether from reaches to, and what to wait for when it does not.
func (m *MemoryNetwork) reach(from, to string) (ok bool, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.cut[[2]string{from, to}], m.changed
}

// MemoryNode is one node's Network in a MemoryNetwork.
type MemoryNode struct {
	id     string
	net    *MemoryNetwork
	raft   *memoryRaft
	http   *acceptQueue
	client *peerClient
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	open map[*memoryConn]struct{}
	shut bool
}

// Addr gives the node's ID.
func (n *MemoryNode) Addr() string { return n.id }

// Raft implements Network.
func (n *MemoryNode) Raft() raft.StreamLayer { return n.raft }

// HTTP implements Network.
func (n *MemoryNode) HTTP() net.Listener { return n.http }

// Client implements Network.
func (n *MemoryNode) Client() *http.Client { return &http.Client{Transport: n.client} }

// Close implements Network: every connection breaks.
func (n *MemoryNode) Close() error {
	n.cancel()
	n.mu.Lock()
	n.shut = true
	open := n.open
	n.open = nil
	n.mu.Unlock()
	for c := range open {
		_ = c.Close() // cannot fail
	}
	_, _ = n.raft.acceptQueue.Close(), n.http.Close() // cannot fail
	return nil
}

// dial goes through when there is a way there and back, as a handshake needs.
func (n *MemoryNode) dial(ctx context.Context, addr, proto string) (net.Conn, error) {
	for {
		there, changed := n.net.reach(n.id, addr)
		back, _ := n.net.reach(addr, n.id)
		if there && back {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("dial node %s: %w", addr, ctx.Err())
		case <-n.ctx.Done():
			return nil, net.ErrClosed
		}
	}
	n.net.mu.Lock()
	peer := n.net.nodes[addr]
	n.net.mu.Unlock()
	if peer == nil {
		return nil, fmt.Errorf("dial node %s: connection refused", addr)
	}
	here, far := newMemoryConns(n, peer)
	if !n.keep(here) || !peer.keep(far) {
		_, _ = here.Close(), far.Close() // cannot fail
		return nil, fmt.Errorf("dial node %s: connection refused", addr)
	}
	queue := peer.http
	if proto == protoRaft {
		queue = peer.raft.acceptQueue
	}
	go queue.offer(far)
	return here, nil
}

func (n *MemoryNode) keep(c *memoryConn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shut {
		return false
	}
	n.open[c] = struct{}{}
	return true
}

func (n *MemoryNode) forget(c *memoryConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, c)
}

// memoryRaft is the raft.StreamLayer of a MemoryNode.
type memoryRaft struct {
	*acceptQueue
	node *MemoryNode
}

// Dial implements raft.StreamLayer.
func (r *memoryRaft) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.node.ctx, timeout)
	defer cancel()
	_, addr := splitAddress(address)
	return r.node.dial(ctx, addr, protoRaft)
}

// Close implements net.Listener and breaks the node's connections, as a process that ends does.
func (r *memoryRaft) Close() error { return r.node.Close() }
