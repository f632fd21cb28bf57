package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"kontiki/errs"
)

// Cluster is a node's part in its Raft group. Open makes one.
type Cluster struct {
	cfg       Config
	log       *slog.Logger
	raft      *raft.Raft
	transport *transport
	store     *guard
	queue     queue
	view      view
	reads     reads
	life      life
}

// life is what stopping needs.
type life struct {
	ctx    context.Context // done once the cluster stops
	stop   context.CancelFunc
	hard   context.Context // done a little later: for what is worth waiting for
	giveUp context.CancelFunc
	failed chan error

	mu      sync.Mutex
	closing bool
	futures sync.WaitGroup // waits on Raft that are under way; counted only while not closing
	done    sync.WaitGroup // the package's goroutines
	ended   chan struct{}  // closed when everything is
	err     error          // of closing the stores
}

// Member is a node of the group's configuration.
type Member struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Voter  bool   `json:"voter"`
	Leader bool   `json:"leader"`
}

// Stats are a node's numbers for people and metrics.
type Stats struct {
	State                       string
	Term                        uint64
	LastIndex, CommitIndex      uint64
	AppliedIndex, SnapshotIndex uint64
	Elections                   uint64        // this node has stood in, since it was opened
	WriteTypical, WriteLongest  time.Duration // of the last 128 writes to the log, syncs included
	Queued                      int           // proposals that wait for the leader
	DiskStalled                 bool          // a write to the log takes longer than Timing.Stall
}

func newCluster(cfg Config) *Cluster {
	c := &Cluster{cfg: cfg, log: cfg.Logger}
	c.life.ctx, c.life.stop = context.WithCancel(context.Background())
	c.life.hard, c.life.giveUp = context.WithCancel(context.Background())
	c.life.failed, c.life.ended = make(chan error, 1), make(chan struct{})
	c.queue.wake = make(chan struct{}, 1)
	c.view.init()
	c.store = &guard{fail: c.fail, stall: &stallWatch{after: cfg.Timing.Stall, ended: c.giveWay}}
	return c
}

// begin starts the goroutines that live as long as the cluster.
func (c *Cluster) begin() {
	observations := make(chan raft.Observation, 1024)
	observer := raft.NewObserver(observations, false, c.view.interested)
	c.raft.RegisterObserver(observer)
	c.life.done.Go(func() {
		c.watch(observations)
		c.raft.DeregisterObserver(observer)
	})
	c.life.done.Go(c.dispatch)
}

// Bootstrap makes the group, with this node, which peers reach at addr, as its one voter. Only `kontiki init` calls
// it. Where there is a group already the error is of code Conflict.
func (c *Cluster) Bootstrap(addr string) error {
	err := c.await(c.life.ctx, c.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(c.cfg.NodeID), Address: serverAddress(c.cfg.NodeID, addr),
	}}}))
	if errors.Is(err, raft.ErrCantBootstrap) {
		return errs.New(errs.Conflict, "node %s belongs to a cluster already", c.cfg.NodeID)
	}
	return wrap("bootstrap the group", err)
}

// IsLeader reports whether this node leads, as far as it knows: another may have been elected a moment ago.
func (c *Cluster) IsLeader() bool { return c.raft.State() == raft.Leader }

// Leader gives the leader's ID and address and the term, as this node knows them; the ID is "" when there is none.
func (c *Cluster) Leader() (id, addr string, term uint64) {
	serverAddr, _ := c.raft.LeaderWithID()
	id, addr = splitAddress(serverAddr)
	return id, addr, c.raft.CurrentTerm()
}

// Members gives the group's latest configuration, which may not be committed yet, in its own order.
func (c *Cluster) Members() []Member {
	leader, _, _ := c.Leader()
	var members []Member
	for _, s := range c.configuration().Servers {
		id, addr := splitAddress(s.Address)
		members = append(members, Member{ID: id, Addr: addr, Voter: s.Suffrage == raft.Voter, Leader: id == leader})
	}
	return members
}

func (c *Cluster) configuration() raft.Configuration {
	f := c.raft.GetConfiguration() // answered at once, from a copy
	if f.Error() != nil {
		return raft.Configuration{}
	}
	return f.Configuration()
}

// Stats gives the node's numbers.
func (c *Cluster) Stats() Stats {
	s := Stats{
		State: c.raft.State().String(), Term: c.raft.CurrentTerm(), LastIndex: c.raft.LastIndex(),
		CommitIndex: c.raft.CommitIndex(), AppliedIndex: c.cfg.Machine.Applied(), Elections: c.view.elections.Load(),
		Queued: c.queue.len(), DiskStalled: c.store.stall.stalled.Load(),
	}
	s.WriteTypical, s.WriteLongest = c.store.writes.quantiles()
	if metas, err := c.store.snapshots.List(); err == nil && len(metas) > 0 {
		s.SnapshotIndex = metas[0].Index
	}
	return s
}

// Snapshot writes the state out and compacts the log now, instead of when Config.Snapshots says. Nothing new is no
// error. On a follower it fails as long as the last thing it has applied is a change of the configuration; the leader
// passes a barrier first.
func (c *Cluster) Snapshot(ctx context.Context) error {
	if c.IsLeader() {
		if err := c.await(ctx, c.raft.Barrier(c.cfg.Timing.Try)); err != nil {
			return wrap("pass the barrier", err)
		}
	}
	err := c.await(ctx, c.raft.Snapshot())
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return wrap("take a snapshot", err)
}

// Failed gives the one error after which the node has no part in its group any more, of a store that failed or was
// found damaged. Nothing that was not stored has been acknowledged; the caller exits with it.
func (c *Cluster) Failed() <-chan error { return c.life.failed }

// fail is called by the store, on Raft's goroutines too: it must not wait for any of them.
func (c *Cluster) fail(err error) {
	select {
	case c.life.failed <- err:
		c.log.Error("the Raft store failed", "path", c.store.path, "err", err)
	default: // it has failed before
	}
	c.life.stop()
	c.raft.Shutdown()
}

// Close leaves gracefully: a leader hands its role to the voter that is furthest along first, if one can take it. It
// returns once everything has ended, or with ctx's error when that does not happen in time. It is idempotent.
func (c *Cluster) Close(ctx context.Context) error {
	if c.IsLeader() {
		if err := c.TransferLeadership(ctx); err != nil {
			c.log.Info("stopping without handing over", "err", err)
		}
	}
	return c.end(ctx)
}

// Kill ends without handing over, as a process that dies.
func (c *Cluster) Kill() {
	if err := c.end(context.Background()); err != nil {
		c.log.Warn("stop", "err", err)
	}
}

func (c *Cluster) end(ctx context.Context) error {
	c.life.mu.Lock()
	first := !c.life.closing
	c.life.closing = true
	c.life.mu.Unlock()
	if first {
		go c.shutdown()
	}
	select {
	case <-c.life.ended:
		return c.life.err
	case <-ctx.Done():
		return wrap("stop the cluster", ctx.Err())
	}
}

// shutdown ends in this order: our goroutines and what waits on Raft, which answers everything while it runs and not
// all of it afterwards; the connections, so that nothing of Raft's waits for a peer; Raft; the stores.
func (c *Cluster) shutdown() {
	c.life.stop()
	c.settle()
	c.life.giveUp()
	c.life.done.Wait()
	stopped := c.raft.Shutdown()
	err := c.transport.Close()
	err = errors.Join(err, stopped.Error())
	c.store.running.Store(false)
	c.life.err = wrap("close the stores", errors.Join(err, c.store.close()))
	close(c.life.ended)
}

// settle gives what waits on Raft the time in which Raft answers: a commit, or the loss of the lease.
func (c *Cluster) settle() {
	settled := make(chan struct{})
	go func() {
		c.life.futures.Wait()
		close(settled)
	}()
	limit := time.NewTimer(c.cfg.Timing.Try)
	defer limit.Stop()
	select {
	case <-settled:
	case <-limit.C:
	}
}

// spawn starts a goroutine that ends with the cluster, unless that is ending already.
func (c *Cluster) spawn(f func()) {
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	if !c.life.closing {
		c.life.done.Go(f)
	}
}

var errStopping = errs.New(errs.Unavailable, "the node is stopping").WithHint("try again through another node")

// await waits for Raft's answer, or for ctx, whichever comes first; the answer may never come when Raft stops.
func (c *Cluster) await(ctx context.Context, f raft.Future) error {
	c.life.mu.Lock()
	if c.life.closing {
		c.life.mu.Unlock()
		return errStopping
	}
	c.life.futures.Add(1)
	c.life.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer c.life.futures.Done()
		done <- f.Error()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wrap adds the action to an error; nil stays nil.
func wrap(action string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}
