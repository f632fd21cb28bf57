package cluster

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"kontiki/errs"
)

// reads knows for which term this node, as leader, has passed its barrier.
type reads struct {
	mu   sync.Mutex
	term uint64
}

// ReadIndex gives an index that covers every write acknowledged before the call, anywhere in the cluster: a reader
// that waits for it (StateMachine.Wait) reads no less than that. The errors are those of Propose.
func (c *Cluster) ReadIndex(ctx context.Context) (uint64, error) {
	for {
		leader, since, changed := c.view.look()
		index, err := uint64(0), error(nil)
		switch {
		case c.IsLeader():
			index, err = c.leaderIndex(ctx)
		case leader.ID != "" && leader.ID != c.cfg.NodeID:
			index, err = c.askIndex(ctx, leader, changed)
		case time.Since(since) >= c.cfg.Timing.Hold:
			return 0, c.noLeader()
		default:
			err = notLeader(c.cfg.NodeID, "")
		}
		switch {
		case err == nil:
			return index, nil
		case c.life.ctx.Err() != nil:
			return 0, errStopping
		case ctx.Err() != nil:
			return 0, errs.New(errs.Unavailable, "no leader confirmed the read before its time was up: %w", err).WithHint("try again")
		}
		c.pause(ctx, changed, c.retryIn())
	}
}

// leaderIndex is the leader's side. The index is that of the state machine, not of the log: barriers and elections
// take indexes that a state machine never sees. Every acknowledged write is applied here: those of this term before
// they were acknowledged, those of earlier terms by the barrier. That no later leader has acknowledged any is what
// VerifyLeader asks a majority.
func (c *Cluster) leaderIndex(ctx context.Context) (uint64, error) {
	if err := c.barrier(ctx); err != nil {
		return 0, err
	}
	index := c.cfg.Machine.Applied()
	if err := c.await(ctx, c.raft.VerifyLeader()); err != nil {
		return 0, wrap("confirm the leadership", err)
	}
	return index, nil
}

// barrier has every entry of earlier terms applied here, once in a term.
func (c *Cluster) barrier(ctx context.Context) error {
	term := c.raft.CurrentTerm()
	c.reads.mu.Lock()
	passed := c.reads.term == term
	c.reads.mu.Unlock()
	if passed {
		return nil
	}
	if err := c.await(ctx, c.raft.Barrier(c.cfg.Timing.Try)); err != nil {
		return wrap("pass the barrier", err)
	}
	if c.raft.CurrentTerm() != term || c.raft.State() != raft.Leader {
		return notLeader(c.cfg.NodeID, "")
	}
	c.reads.mu.Lock()
	c.reads.term = term
	c.reads.mu.Unlock()
	return nil
}

// askIndex is the follower's side.
func (c *Cluster) askIndex(ctx context.Context, leader Member, changed <-chan struct{}) (uint64, error) {
	try, cancel := c.tryUntil(ctx, changed)
	defer cancel()
	body, err := c.call(try, request{http.MethodGet, leader, pathReadIndex, nil})
	if err != nil {
		return 0, err
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return 0, wrap("read the leader's index", err)
	}
	return a.Index, nil
}
