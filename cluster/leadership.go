package cluster

import (
	"context"

	"github.com/hashicorp/raft"

	"kontiki/errs"
)

// Run carries out the leader's role whenever this node leads, until ctx is done or the cluster stops: it passes the
// barrier, so that everything earlier leaders committed is applied here, and calls role with a context that ends when
// the leadership does. It waits for role to return before it looks at anything else: there are never two roles at
// once on a node. A role that returns early is not called again in that term. Run gives ctx's error, or nil when the
// cluster stopped. It must be called once only: Raft tells one listener.
func (c *Cluster) Run(ctx context.Context, role func(ctx context.Context, term uint64)) error {
	lead := c.IsLeader() // a node that led before Run was called may have said so already
	for {
		if lead {
			lead = c.lead(ctx, role)
			continue
		}
		select {
		case lead = <-c.raft.LeaderCh():
		case <-ctx.Done():
			return ctx.Err()
		case <-c.life.ctx.Done():
			return nil
		}
	}
}

// lead runs the role for one term and says whether there is another one to lead already: Raft keeps only the latest
// change, so gained while leading means lost and gained.
func (c *Cluster) lead(ctx context.Context, role func(ctx context.Context, term uint64)) (again bool) {
	select { // what is there is from before; what comes from here on ends this term
	case <-c.raft.LeaderCh():
	default:
	}
	term := c.raft.CurrentTerm()
	if !c.IsLeader() || ctx.Err() != nil {
		return false
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.settleIn(inner, term) {
			c.log.Info("leading", "term", term)
			role(inner, term)
		}
	}()
	select {
	case again = <-c.raft.LeaderCh():
	case <-ctx.Done():
	case <-c.life.ctx.Done():
	}
	cancel()
	<-done
	c.log.Info("leading no more", "term", term)
	return again
}

// settleIn passes the barrier; false says that the term is over.
func (c *Cluster) settleIn(ctx context.Context, term uint64) bool {
	for ctx.Err() == nil {
		if err := c.barrier(ctx); err == nil {
			return c.raft.CurrentTerm() == term
		}
		_, _, changed := c.view.look()
		c.pause(ctx, changed, c.retryIn())
	}
	return false
}

// TransferLeadership hands the leadership to the voter that is furthest along and waits until it has it. It is no
// error when this node does not lead. When nobody can take it the error is of code Unavailable.
func (c *Cluster) TransferLeadership(ctx context.Context) error {
	if !c.IsLeader() {
		return nil
	}
	if reachable, _ := c.voters(); reachable < 2 {
		return errs.New(errs.Unavailable, "no other voter can take the leadership")
	}
	if err := c.await(ctx, c.raft.LeadershipTransfer()); err != nil && c.raft.State() == raft.Leader {
		return errs.New(errs.Unavailable, "hand over the leadership: %w", err).WithHint("try again")
	}
	return nil
}

// giveWay is called after a write that stalled: the next will, too.
func (c *Cluster) giveWay() {
	c.spawn(func() {
		ctx, cancel := context.WithTimeout(c.life.ctx, c.cfg.Timing.Hold)
		defer cancel()
		if err := c.TransferLeadership(ctx); err != nil {
			c.log.Warn("the disk is slow and nobody can take the leadership", "path", c.store.path, "err", err)
		}
	})
}
