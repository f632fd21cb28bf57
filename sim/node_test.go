package sim

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"kontiki/agent"
	"kontiki/cluster"
	"kontiki/fsm"
	"kontiki/reconcile"
)

// node is one simulated node. What a kill -9 leaves behind is in store and disk; a process is the rest.
type node struct {
	w     *world
	id    string
	store *cluster.MemoryStore
	disk  *disk
	known bool // it has had state before

	up      atomic.Bool
	fsm     *fsm.FSM
	cluster *cluster.Cluster
	agent   *agent.Agent
	net     *cluster.MemoryNode
	cancel  context.CancelFunc
	wg      *sync.WaitGroup
}

// timing is slower than the shipped one: a fraction of the messages, and so of the real time.
var timing = cluster.Timing{Heartbeat: 600 * time.Millisecond, Election: 600 * time.Millisecond, Lease: 500 * time.Millisecond,
	Commit: 100 * time.Millisecond, Hold: 3 * time.Second}

// start starts the node's process, as node.Open and Run do.
func (n *node) start() {
	n.fsm, n.wg = fsm.New(), &sync.WaitGroup{}
	n.net = n.w.net.Node(n.id)
	logger := slog.New(slog.DiscardHandler)
	if *trace {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", n.id)
	}
	c, err := cluster.Open(cluster.Config{NodeID: n.id, ClusterID: "sim", Memory: n.store, Expect: n.known, Network: n.net, Timing: timing,
		Machine: n.w.book.witness(n.id, n.fsm), Snapshots: cluster.Snapshots{Threshold: 100, Trailing: 30, Interval: 5 * time.Second}, Logger: logger})
	if err != nil {
		n.w.fatalf("start %s: %v", n.id, err)
	}
	n.cluster = c
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	blobs := &blobs{n: n, client: n.net.Client()}
	mux := http.NewServeMux()
	mux.Handle("/cluster/", c.Handler())
	mux.Handle("/blobs/", n.disk)
	mux.HandleFunc("/inventory", n.serveInventory)
	server := &http.Server{Handler: mux}
	n.agent = agent.New(agent.Config{Node: n.id, Replica: n.fsm, Proposer: c, Blobs: blobs, Sites: n.disk, Engine: n.disk, Prober: n.disk, Logs: n.disk,
		Inspector: n.disk, Logger: logger, Heartbeat: 5 * time.Second})
	n.wg.Go(func() { _ = server.Serve(n.net.HTTP()) })    // ends with the network
	n.wg.Go(func() { <-ctx.Done(); _ = server.Close() })  // cannot fail here
	n.wg.Go(func() { _ = c.Run(ctx, n.lead(c, logger)) }) // ends with ctx
	a := n.agent
	n.wg.Go(func() { n.work(ctx, c, n.fsm, a) })
	n.wg.Go(func() { n.introduce(ctx, c) })
	n.up.Store(true)
}

// work starts the agent once what was committed before is applied here.
func (n *node) work(ctx context.Context, c *cluster.Cluster, f *fsm.FSM, a *agent.Agent) {
	for ctx.Err() == nil {
		if index, err := c.ReadIndex(ctx); err == nil && f.Wait(ctx, index) == nil {
			a.Run(ctx)
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func (n *node) introduce(ctx context.Context, c *cluster.Cluster) {
	cmd := fsm.NewCommand(fsm.NodeUpdate{ID: n.id, Version: "sim", Incarnation: n.id}, fsm.NodeActor(n.id))
	for ctx.Err() == nil {
		if r, err := c.Propose(ctx, cmd); err == nil || r.Err != nil {
			return
		}
		pause(ctx, time.Second)
	}
}

// lead is the leader's role, as in package node.
func (n *node) lead(c *cluster.Cluster, logger *slog.Logger) func(ctx context.Context, term uint64) {
	f := n.fsm
	desired := func() (out []cluster.DesiredMember) {
		for m := range f.State().Nodes() {
			out = append(out, cluster.DesiredMember{ID: m.ID, Addr: m.ClusterAddr})
		}
		return out
	}
	silence := func() map[string]time.Duration {
		health, out := c.PeerHealth(), map[string]time.Duration{}
		for _, m := range c.Members() {
			out[m.ID] = health[m.ID]
		}
		return out
	}
	client := n.net.Client()
	inventory := func(ctx context.Context, id string) (out []reconcile.Holding, err error) {
		err = askInventory(ctx, client, f.State().Node(id), &out)
		return out, err
	}
	return func(ctx context.Context, term uint64) {
		var wg sync.WaitGroup
		wg.Go(func() { c.ManageMembers(ctx, desired, f.Changed) })
		wg.Go(func() {
			reconcile.NewLoop(reconcile.Config{Node: n.id, Term: term, Replica: f, Proposer: c, Silence: silence,
				Inventory: inventory, Logger: logger}).Run(ctx)
		})
		wg.Wait()
	}
}

func (n *node) serveInventory(w http.ResponseWriter, r *http.Request) {
	holdings, err := n.agent.Inventory(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_ = json.NewEncoder(w).Encode(holdings) // the asker is gone when this fails
}

// askInventory asks a node what it has, itself too: over the network, which may be cut.
func askInventory(ctx context.Context, client *http.Client, peer *fsm.Node, out any) error {
	if peer == nil {
		return errors.New("no such node")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, cluster.PeerURL(peer.ID, peer.ClusterAddr, "/inventory"), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// kill ends the process at once: nothing that is not stored or sent yet will be.
func (n *node) kill() {
	if !n.up.Swap(false) {
		return
	}
	_ = n.net.Close() // cannot fail
	n.cancel()
	n.cluster.Kill()
	n.wg.Wait()
}

// close ends the process gracefully.
func (n *node) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if !n.up.Swap(false) {
		return
	}
	if err := n.cluster.TransferLeadership(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		n.w.tally.count("nobody to hand over to")
	}
	n.cancel()
	_ = n.cluster.Close(ctx) // a cut-off node has nobody to hand over to, and stops all the same
	_ = n.net.Close()        // cannot fail
	n.cluster.Kill()
	n.wg.Wait()
}

func (n *node) running() bool { return n.up.Load() }

func (n *node) leads() bool { return n.up.Load() && n.cluster.IsLeader() }

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
