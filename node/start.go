package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"kontiki/cluster"
	"kontiki/errs"
	"kontiki/fsm"
)

// from completes a configuration with what the identity says.
func (c Config) from(id Identity) Config {
	c.Advertise = cmp.Or(c.Advertise, id.Advertise)
	c.ClusterAddr = cmp.Or(c.ClusterAddr, id.ClusterAddr)
	c.APIAddr = cmp.Or(c.APIAddr, id.APIAddr)
	c.IngressAddr = cmp.Or(c.IngressAddr, id.IngressAddr)
	return c.withDefaults()
}

// introduce records that the node has state, and tells the cluster how it runs now. A refusal is fatal: it means that
// this node is not, or no longer, who it says.
func (n *Node) introduce(ctx context.Context, fatal context.CancelCauseFunc) {
	body := fsm.NodeUpdate{ID: n.ID(), APIAddr: n.cfg.advertised(n.cfg.APIAddr), IngressAddr: n.cfg.advertised(n.cfg.IngressAddr),
		Engine: n.engine, Version: Version, Incarnation: n.identity.Incarnation}
	cmd := fsm.NewCommand(body, fsm.NodeActor(n.ID()))
	for ctx.Err() == nil {
		r, err := n.cluster.Propose(ctx, cmd)
		if r.Err != nil {
			fatal(r.Err) // the state machine's answer, and final
			return
		}
		if err == nil {
			n.rememberStart(fatal)
			return
		}
		if err := n.turnedAway(ctx); err != nil {
			fatal(err)
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// turnedAway asks the members this node knows of whether they still take it for one of theirs: after it was removed no
// leader talks to it, and its own log may end before its removal.
func (n *Node) turnedAway(ctx context.Context) error {
	for _, m := range n.cluster.Members() {
		if m.ID == n.ID() {
			continue
		}
		var status cluster.Status
		if err := n.askAt(ctx, m, "/cluster/status", &status); errs.CodeOf(err) == errs.RemovedPeer {
			return err
		}
	}
	return nil
}

// mind ends the node when it was removed and the entry that says so never got here: once that is applied elsewhere nobody
// sends it anything more, and all it sees is that there is no leader.
func (n *Node) mind(ctx context.Context, fatal context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if leader, _, _ := n.cluster.Leader(); leader != "" {
			continue
		}
		if err := n.turnedAway(ctx); err != nil {
			fatal(err)
			return
		}
	}
}

// run serves until the server is shut down.
func (s server) run(fatal context.CancelCauseFunc) {
	if err := s.http.Serve(s.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		fatal(fmt.Errorf("serve %s: %w", s.name, err))
	}
}

// work lets in user traffic and starts the agent once the node has caught up. While the log is replayed the state is
// that of some time ago: a route would lead to what was active then, and an agent would do over what was long done.
func (n *Node) work(ctx context.Context, fatal context.CancelCauseFunc) {
	for n.catchUp(ctx) != nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
	close(n.caughtUp)
	l, err := n.reserved.listen()
	if err != nil {
		fatal(err)
		return
	}
	n.cfg.Logger.Info("caught up, user traffic is let in", "index", n.fsm.Applied())
	var wg sync.WaitGroup
	wg.Go(func() { server{name: "ingress", http: n.ingress, listener: l}.run(fatal) })
	wg.Go(func() { n.agent.Run(ctx) })
	wg.Go(func() { n.sweepLogs(ctx) })
	wg.Go(func() { n.tellStrays(ctx) })
	wg.Wait()
}

// catchUp waits until everything is applied here that was committed when it was called.
func (n *Node) catchUp(ctx context.Context) error {
	index, err := n.cluster.ReadIndex(ctx)
	if err != nil {
		return err
	}
	return n.fsm.Wait(ctx, index)
}

func (n *Node) rememberStart(fatal context.CancelCauseFunc) {
	if n.identity.Started {
		return
	}
	id := n.identity
	id.Started = true
	if err := id.save(n.cfg.DataDir); err != nil {
		fatal(err)
	}
}

// watch ends the node when its log fails, when the log has commands this version does not know, or when the node is
// removed.
func (n *Node) watch(ctx context.Context, fatal context.CancelCauseFunc) {
	cut := map[string]bool{}
	for {
		changed := n.fsm.Changed()
		n.cutOff(cut)
		if c := n.fsm.State().Cluster(); c != nil && c.ID != n.identity.ClusterID {
			fatal(errs.New(errs.IdentityMismatch, "this node is one of cluster %s, and its log that of cluster %s", n.identity.ClusterID, c.ID).
				WithHint("put back %s as it was", n.cfg.path("raft")))
			return
		}
		if err := n.fsm.Halted(); err != nil {
			fatal(err)
			return
		}
		if err := n.authorize(n.ID()); err != nil {
			fatal(err)
			return
		}
		select {
		case err := <-n.cluster.Failed():
			fatal(err)
			return
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// cutOff closes the Raft connections of nodes that were removed since it last looked.
func (n *Node) cutOff(cut map[string]bool) {
	for gone := range n.fsm.State().RemovedNodes() {
		if !cut[gone.ID] {
			cut[gone.ID] = true
			n.port.Disconnect(gone.ID)
		}
	}
}

// peers reaches the other nodes for the ingress.
type peers struct{ n *Node }

// Peer implements ingress.Peers.
func (p peers) Peer(id string) (string, http.RoundTripper, bool) {
	node := p.n.fsm.State().Node(id)
	if node == nil {
		return "", nil, false
	}
	return cluster.PeerURL(id, node.ClusterAddr, ""), p.n.port.Client().Transport, true
}

// quiet sends what net/http has to say, mostly of clients that went away, to the debug log.
func quiet(l *slog.Logger) *log.Logger {
	return slog.NewLogLogger(l.Handler(), slog.LevelDebug)
}
