package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"kontiki/errs"
)

// Open starts the node's part in its group, or refuses: with StateCorrupt when the stored state is not what was
// stored (or is gone where Config.Expect says there was some), with Conflict when another process has it open. It
// never makes a group: a node with an empty store waits to be added by another one, or for Bootstrap.
func Open(cfg Config) (*Cluster, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := newCluster(cfg)
	if err := c.openStores(); err != nil {
		return nil, err
	}
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.store.close())
	}
	return c, nil
}

func (c *Cluster) openStores() error {
	var s stores
	if c.cfg.Memory != nil {
		s = c.cfg.Memory.stores()
	} else {
		var err error
		if s, err = openDisk(c.cfg); err != nil {
			return err
		}
	}
	if c.cfg.wrap != nil {
		s = c.cfg.wrap(s)
	}
	c.store.stores = s
	if err := c.store.checkState(c.cfg.Expect); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

// checkState verifies every stored value and that log, snapshots and witness fit together.
func (g *guard) checkState(expect bool) error {
	metas, err := g.snapshots.List()
	if err != nil {
		return fmt.Errorf("list the snapshots beside %s: %w", g.path, err)
	}
	var snapshot uint64
	if len(metas) > 0 {
		snapshot = metas[0].Index
	}
	first, last, err := g.checkLogs(snapshot)
	if err != nil {
		return asCorrupt(g.path, err)
	}
	known, err := g.checkTerms()
	if err != nil {
		return asCorrupt(g.path, err)
	}
	if expect && last == 0 && snapshot == 0 {
		return corrupt(g.path, errors.New("it is empty, but this node has had state before"))
	}
	if last > 0 && first > snapshot+1 {
		return corrupt(g.path, fmt.Errorf("the log begins at entry %d and the newest whole snapshot ends at %d", first, snapshot))
	}
	if g.witness == nil {
		return nil
	}
	was := g.witness.seen
	if reach := max(last, snapshot); reach < max(was.last, was.snapshot) {
		return corrupt(g.path, fmt.Errorf("it ends at entry %d, but entry %d had been stored", reach, max(was.last, was.snapshot)))
	}
	if known.term < was.term || known.vote < was.vote {
		return corrupt(g.path, fmt.Errorf("it knows term %d and a vote in term %d, but had stored %d and %d",
			known.term, known.vote, was.term, was.vote))
	}
	return nil
}

// checkTerms reads the stable values Raft keeps.
func (g *guard) checkTerms() (known seen, err error) {
	if known.term, err = g.GetUint64([]byte("CurrentTerm")); err != nil {
		return known, err
	}
	if known.vote, err = g.GetUint64([]byte("LastVoteTerm")); err != nil {
		return known, err
	}
	_, err = g.Get([]byte("LastVoteCand"))
	return known, err
}

// asCorrupt makes an error of reading a StateCorrupt one, unless it has a class of its own.
func asCorrupt(path string, err error) error {
	if code := errs.CodeOf(err); code == errs.StateCorrupt || code == errs.DiskFull {
		return err
	}
	return corrupt(path, err)
}

// start makes the transport and Raft and the goroutines beside it.
func (c *Cluster) start() error {
	t, log := c.cfg.Timing, raftLogger(c.cfg.Logger)
	c.transport = &transport{stall: c.store.stall, ended: c.life.ctx.Done(), NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  c.cfg.Network.Raft(),
		Logger:  log,
		MaxPool: 4,
		// Pipelining lets one failed write of a follower's store wedge it for good; one at a time costs no more here than
		// the noise of two syncs.
		MaxRPCsInFlight:         1,
		Timeout:                 t.Try,
		MsgpackUseNewTimeFormat: true,
	})}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.cfg.NodeID)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t.Heartbeat, t.Election, t.Lease
	conf.CommitTimeout = t.Commit
	conf.MaxAppendEntries = 32 // of up to 256 KiB each
	conf.ShutdownOnRemove = false
	conf.SnapshotInterval = c.cfg.Snapshots.Interval
	conf.SnapshotThreshold, conf.TrailingLogs = c.cfg.Snapshots.Threshold, c.cfg.Snapshots.Trailing
	conf.NoLegacyTelemetry = true
	conf.Logger = log
	cache, err := raft.NewLogCache(16, c.store) // what followers ask for next; grouped entries are large
	if err != nil {
		return fmt.Errorf("make the log cache: %w", err)
	}
	c.raft, err = c.newRaft(conf, cache)
	if err != nil {
		return errors.Join(err, c.transport.Close())
	}
	c.store.running.Store(true)
	c.begin()
	return nil
}

// newRaft turns a panic of Raft's constructor into an error: it meets stored state first.
func (c *Cluster) newRaft(conf *raft.Config, log raft.LogStore) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = corrupt(c.store.path, fmt.Errorf("start Raft: %v", p))
		}
	}()
	r, err = raft.NewRaft(conf, machine{c.cfg.Machine}, log, c.store, c.store.snapshots, c.transport)
	if err != nil {
		return nil, asCorrupt(c.store.path, fmt.Errorf("start Raft: %w", err))
	}
	return r, nil
}
