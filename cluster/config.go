package cluster

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// StateMachine is what the group replicates; *fsm.FSM is it.
type StateMachine interface {
	// Apply carries out a log entry, once and in the order of the indexes, and gives one result per command. It never
	// panics and depends on nothing but the entries so far.
	Apply(index, term uint64, entry []byte) []fsm.Result
	// Snapshot gives the state of this moment; it is written out while Apply goes on.
	Snapshot() io.WriterTo
	// Restore replaces the state by what a snapshot wrote; after an error the state is as it was.
	Restore(r io.Reader) error
	// Applied gives the index of the last entry applied.
	Applied() uint64
	// Wait returns when Applied() >= index, or with ctx's error.
	Wait(ctx context.Context, index uint64) error
}

// Config is what Open needs. Timing, Snapshots and Logger may be zero.
type Config struct {
	// NodeID and ClusterID are this node's and its cluster's.
	NodeID, ClusterID string
	// Dir holds raft.db, its witness and the snapshots. It is made when it is not there.
	Dir string
	// Memory, when not nil, is used instead of Dir: for tests and throw-away nodes.
	Memory *MemoryStore
	// Expect says that this node has had state before: then Open refuses an empty store.
	Expect bool
	// Machine is what is replicated, Network how peers are reached. The caller closes the network, after the cluster.
	Machine StateMachine
	Network Network
	// Timing and Snapshots are the settings; a zero field means its default.
	Timing    Timing
	Snapshots Snapshots
	Logger    *slog.Logger

	// wrap lets tests put failing stores between Raft and the real ones.
	wrap func(stores) stores
}

// Timing are the durations a cluster lives by; the defaults are in withDefaults.
type Timing struct {
	// Heartbeat is how long a follower waits for its leader before it stands for election, Election how long a
	// candidate waits for votes, Lease how long a leader goes on without hearing from a majority. Lease <= Heartbeat
	// <= Election.
	Heartbeat, Election, Lease time.Duration
	// Commit is the longest an idle follower waits to hear that an entry is committed. It costs a small message per
	// follower in that time, and is the greater part of a forwarded write's latency when nothing else goes on.
	Commit time.Duration
	// Hold is how long proposals and reads wait for a leader before they are refused with NoLeader.
	Hold time.Duration
	// Try bounds one attempt to reach a peer: a stopped one accepts connections and never answers.
	Try time.Duration
	// Stall is how long one write to the log may take before a leader gives way to nodes with a working disk.
	Stall time.Duration
	// Lost is how long a voter must be out of contact before a non-voter takes its place.
	Lost time.Duration
}

// Snapshots says when the log is compacted.
type Snapshots struct {
	// Threshold is how many entries since the last snapshot make another one due, Trailing how many are kept behind
	// it so that a follower that was away for a little catches up from the log. An entry can hold 256 KiB.
	Threshold, Trailing uint64
	// Interval is how often it is looked at.
	Interval time.Duration
	// Retain is how many snapshots are kept; two, so that a torn newest one has an older behind it.
	Retain int
}

func (t Timing) withDefaults() Timing {
	return Timing{
		Heartbeat: cmp.Or(t.Heartbeat, 150*time.Millisecond),
		Election:  cmp.Or(t.Election, 150*time.Millisecond),
		Lease:     cmp.Or(t.Lease, 120*time.Millisecond),
		Commit:    cmp.Or(t.Commit, 5*time.Millisecond),
		Hold:      cmp.Or(t.Hold, 5*time.Second),
		Try:       cmp.Or(t.Try, time.Second),
		Stall:     cmp.Or(t.Stall, 2*time.Second),
		Lost:      cmp.Or(t.Lost, 30*time.Second),
	}
}

// check refuses what Raft would refuse, before anything is opened.
func (t Timing) check() error {
	if t.Lease < 5*time.Millisecond || t.Lease > t.Heartbeat || t.Heartbeat > t.Election || t.Commit < time.Millisecond {
		return errs.New(errs.Invalid, "the Raft timing does not fit together: lease %s, heartbeat %s, election %s, commit %s",
			t.Lease, t.Heartbeat, t.Election, t.Commit).WithField("timing").
			WithHint("5ms <= lease <= heartbeat <= election, and commit at least 1ms")
	}
	return nil
}

func (s Snapshots) withDefaults() Snapshots {
	return Snapshots{
		Threshold: cmp.Or(s.Threshold, 4096),
		Trailing:  cmp.Or(s.Trailing, 1024),
		Interval:  cmp.Or(s.Interval, 30*time.Second),
		Retain:    cmp.Or(s.Retain, 2),
	}
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.NodeID == "":
		return c, errs.New(errs.Invalid, "the node has no ID").WithField("node")
	case c.Dir == "" && c.Memory == nil:
		return c, errs.New(errs.Invalid, "no directory for the Raft log is given").WithField("data")
	case c.Machine == nil || c.Network == nil:
		return c, errs.New(errs.Internal, "cluster.Config lacks its Machine or its Network")
	}
	c.Timing, c.Snapshots = c.Timing.withDefaults(), c.Snapshots.withDefaults()
	if err := c.Timing.check(); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
