package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"kontiki/fsm"
	"kontiki/pki"
)

// patience bounds every wait of the tests; nothing is asserted about how long anything takes.
const patience = 30 * time.Second

// group is a number of nodes in this process, over TLS and bolt or in memory.
type group struct {
	t       *testing.T
	ca      *pki.CA
	memory  *MemoryNetwork // nil: real sockets and files
	dir     string
	nodes   map[string]*node
	desired []DesiredMember
	adjust  func(*Config)
}

// node is one of them; its store outlives it.
type node struct {
	*Cluster
	id      string
	net     Network
	machine *record
	server  *http.Server
	served  chan struct{}
	disk    *MemoryStore
	addr    string
}

func newGroup(t *testing.T, memory bool, adjust func(*Config)) *group {
	t.Helper()
	g := &group{t: t, dir: t.TempDir(), nodes: map[string]*node{}, adjust: adjust}
	if memory {
		g.memory = NewMemoryNetwork()
	} else {
		ca, err := pki.NewCA("c1")
		g.must(err)
		g.ca = ca
	}
	t.Cleanup(g.stop)
	return g
}

func (g *group) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) stop() {
	for id := range g.nodes {
		g.kill(id)
	}
}

// open starts a node, or starts it again on what it had stored.
func (g *group) open(id string) *node {
	g.t.Helper()
	n, err := g.tryOpen(id, false)
	g.must(err)
	return n
}

func (g *group) tryOpen(id string, expect bool) (*node, error) {
	g.t.Helper()
	n := &node{id: id, machine: newRecord(), disk: NewMemoryStore(), addr: "127.0.0.1:0"}
	if old := g.nodes[id]; old != nil {
		n.disk, n.addr = old.disk, old.addr
	}
	n.net = g.network(n)
	n.addr = n.net.Addr()
	cfg := Config{NodeID: id, ClusterID: "c1", Machine: n.machine, Network: n.net, Expect: expect}
	if g.memory != nil {
		cfg.Memory = n.disk
	} else {
		cfg.Dir = filepath.Join(g.dir, id)
	}
	if g.adjust != nil {
		g.adjust(&cfg)
	}
	c, err := Open(cfg)
	if err != nil {
		return nil, errors.Join(err, n.net.Close())
	}
	n.Cluster = c
	n.server, n.served = &http.Server{Handler: c.Handler()}, make(chan struct{})
	go func() {
		defer close(n.served)
		_ = n.server.Serve(n.net.HTTP()) // ends with ErrServerClosed
	}()
	g.nodes[id] = n
	return n, nil
}

func (g *group) network(n *node) Network {
	if g.memory != nil {
		return g.memory.Node(n.id)
	}
	bundle, err := g.ca.Issue(n.id, nil)
	g.must(err)
	port, err := NewPort(PortConfig{Bind: n.addr, Bundle: bundle})
	g.must(err)
	return port
}

// kill stops a node as if its process had died; open brings it back.
func (g *group) kill(id string) {
	n := g.nodes[id]
	if n == nil || n.Cluster == nil {
		return
	}
	err := errors.Join(n.server.Close())
	n.Kill()
	err = errors.Join(err, n.net.Close())
	<-n.served
	n.Cluster = nil
	if err != nil {
		g.t.Errorf("kill %s: %v", id, err)
	}
}

// form makes a group of n1 to n<count>, all of them voters.
func (g *group) form(count int) {
	g.t.Helper()
	for i := 1; i <= count; i++ {
		g.open(fmt.Sprintf("n%d", i))
	}
	g.must(g.nodes["n1"].Bootstrap(g.nodes["n1"].addr))
	g.join(count)
}

// join has n1 .. n<count> admitted by whoever leads, and waits until they vote.
func (g *group) join(count int) {
	g.t.Helper()
	g.desired = nil
	for i := 1; i <= count; i++ {
		id := fmt.Sprintf("n%d", i)
		g.desired = append(g.desired, DesiredMember{id, g.nodes[id].addr})
	}
	g.manage(func() bool { return g.leader().votersKnown() == min(count, maxVoters) })
	// A voter that has not heard of another one's promotion yet gives it no vote, and when the leader dies just then
	// there is no majority without it.
	for _, d := range g.desired {
		g.until(d.ID+" knows all voters", func() bool { return g.nodes[d.ID].votersKnown() == min(count, maxVoters) })
	}
}

// votersKnown counts the voters in the configuration as this node has it.
func (n *node) votersKnown() int {
	voters := 0
	for _, m := range n.Members() {
		if m.Voter {
			voters++
		}
	}
	return voters
}

// manage runs the membership loop on the leader until done says so.
func (g *group) manage(done func() bool) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	leader, stopped := g.leader(), make(chan struct{})
	go func() {
		defer close(stopped)
		leader.ManageMembers(ctx, func() []DesiredMember { return g.desired }, func() <-chan struct{} { return nil })
	}()
	g.until("the membership is as desired", done)
	cancel()
	<-stopped
}

// until waits for a condition that nothing announces.
func (g *group) until(what string, done func() bool) {
	g.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			g.t.Fatalf("never: %s", what)
		}
	}
}

// leader gives the node that leads, in the eyes of a majority of its voters.
func (g *group) leader() *node {
	g.t.Helper()
	var found *node
	g.until("one leads", func() bool {
		found = nil
		for _, n := range g.nodes {
			if n.Cluster != nil && n.IsLeader() && g.follow(n) {
				found = n
			}
		}
		return found != nil
	})
	return found
}

func (g *group) follow(leader *node) bool {
	voters, follow := 0, 0
	for _, m := range leader.Members() {
		if !m.Voter {
			continue
		}
		voters++
		if n := g.nodes[m.ID]; n != nil && n.Cluster != nil {
			if id, _, _ := n.Leader(); id == leader.id {
				follow++
			}
		}
	}
	return follow > voters/2
}

// follower gives a running node that does not lead and knows who does.
func (g *group) follower() *node {
	g.t.Helper()
	leader := g.leader()
	for _, n := range g.nodes {
		if n.Cluster != nil && n != leader {
			g.until("it knows the leader", func() bool { id, _, _ := n.Leader(); return id == leader.id })
			return n
		}
	}
	g.t.Fatal("there is no follower")
	return nil
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func command(id string) fsm.Command {
	return fsm.Command{ID: id, Kind: "test.note", Body: []byte{0xa0}}
}

// propose has one command committed through a node.
func (g *group) propose(n *node, id string) fsm.Result {
	g.t.Helper()
	r, err := n.Propose(soon(g.t), command(id))
	g.must(err)
	return r
}
