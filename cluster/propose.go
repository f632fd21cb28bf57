package cluster

import (
	"context"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// Propose has a command committed through whichever node leads, and gives its result once this node has applied it.
// Through elections and lost answers it tries the same command again, which the state machine applies once.
//
// A refusal of the state machine comes as the error too (Result.Err). Other errors: TooLarge for a command over
// 256 KiB, NoLeader when there was no leader for Timing.Hold, Timeout when ctx ended and the outcome is unknown,
// Unavailable when ctx or the node ended before the command was sent, TooMany when too many wait.
//
// The leader puts everything that waits into one log entry and has one entry in flight; meanwhile the next group
// forms. So a group waits for nothing but the one before it: more entries in flight were measured to be slower, as
// they share the one disk. Followers send their groups to the leader in the same way (forward.go).
func (c *Cluster) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	p, err := newProposal(cmd.Encode(), false)
	if err != nil {
		return fsm.Result{}, err
	}
	if err := c.queue.add(p); err != nil {
		return fsm.Result{}, err
	}
	return c.wait(ctx, p)
}

func newProposal(data []byte, foreign bool) (*proposal, error) {
	if len(data) > maxGroupBytes {
		return nil, errs.New(errs.TooLarge, "a command of %d bytes is over the limit of %d", len(data), maxGroupBytes).
			WithHint("large content belongs into a blob")
	}
	return &proposal{data: data, foreign: foreign, done: make(chan outcome, 1)}, nil
}

func (c *Cluster) wait(ctx context.Context, p *proposal) (fsm.Result, error) {
	select {
	case o := <-p.done:
		if o.err == nil && o.result.Err != nil {
			return o.result, o.result.Err
		}
		return o.result, o.err
	case <-ctx.Done():
	}
	if c.queue.leave(p) {
		return fsm.Result{}, unknownOutcome("the write was sent, and the time was up before its answer came")
	}
	return fsm.Result{}, errs.New(errs.Unavailable, "the write was not sent before its time was up: %w", ctx.Err()).
		WithHint("try again")
}

func unknownOutcome(what string) *errs.Error {
	return errs.New(errs.Timeout, "%s", what).WithHint("outcome unknown; retry under the same Idempotency-Key")
}

// dispatch is the goroutine that takes proposals from the queue, as long as the cluster lives.
func (c *Cluster) dispatch() {
	defer c.stopProposals()
	slots := make(chan struct{}, maxForwards)
	for c.life.ctx.Err() == nil {
		leader, since, changed := c.view.look()
		var held <-chan time.Time
		switch {
		case c.IsLeader():
			if group := c.queue.take(); len(group) > 0 {
				c.commit(group)
				continue
			}
		case leader.ID != "" && leader.ID != c.cfg.NodeID:
			c.refuseForeign(leader)
			if c.sendGroup(leader, slots) {
				continue
			}
		default:
			c.refuseForeign(leader)
			left := c.cfg.Timing.Hold - time.Since(since)
			if left <= 0 {
				c.refuseHeld()
			}
			held = time.After(max(left, c.cfg.Timing.Heartbeat))
		}
		select {
		case <-c.queue.wake:
		case <-changed:
		case <-held:
		case <-c.life.ctx.Done():
		}
	}
}

// commit puts a group into the log as the leader and answers it. Raft answers when it is applied here, or when the
// leadership is lost, which the lease bounds; while the disk hangs it does not, and neither could anybody else. When
// the node stops it may never answer.
func (c *Cluster) commit(group []*proposal) {
	data := make([][]byte, len(group))
	for i, p := range group {
		data[i] = p.data
	}
	f := c.raft.Apply(fsm.EncodeEntry(data), c.cfg.Timing.Try)
	if err := c.await(c.life.hard, f); err != nil {
		c.retry(group, err)
		return
	}
	results, ok := f.Response().([]fsm.Result)
	if !ok || len(results) != len(group) {
		deliver(group, nil, errs.New(errs.Internal, "the state machine gave %d results for %d commands", len(results), len(group)))
		return
	}
	deliver(group, results, nil)
	c.queue.gather()
}

// retry has a group that was not acknowledged tried again. It may be in the log all the same: the state machine knows
// its commands by their IDs.
func (c *Cluster) retry(group []*proposal, why error) {
	c.log.Debug("a group of commands goes again", "commands", len(group), "err", why)
	_, _, changed := c.view.look()
	if !c.queue.putBack(group) {
		answerStopped(group)
	} else if c.IsLeader() { // handing over, most likely: do not spin until it is done
		c.pause(c.life.ctx, changed, c.cfg.Timing.Commit)
	}
}

// pause waits for a change of leader, but not for long.
func (c *Cluster) pause(ctx context.Context, changed <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	case <-c.life.ctx.Done():
	}
}

func deliver(group []*proposal, results []fsm.Result, err error) {
	for i, p := range group {
		o := outcome{err: err}
		if err == nil {
			o.result = results[i]
		}
		p.done <- o
	}
}

// refuseForeign answers what other nodes sent here in the belief that this one leads.
func (c *Cluster) refuseForeign(leader Member) {
	if group := c.queue.remove(func(p *proposal) bool { return p.foreign }); len(group) > 0 {
		deliver(group, nil, notLeader(c.cfg.NodeID, leader.ID))
	}
}

func notLeader(self, leader string) *errs.Error {
	if leader == "" || leader == self {
		return errs.New(errs.NotLeader, "node %s does not lead, and knows no leader", self)
	}
	return errs.New(errs.NotLeader, "node %s does not lead, node %s does", self, leader)
}

// refuseHeld gives up what has waited for a leader long enough.
func (c *Cluster) refuseHeld() {
	all := c.queue.remove(func(*proposal) bool { return true })
	deliver(all, nil, c.noLeader())
}

func (c *Cluster) noLeader() *errs.Error {
	return errs.New(errs.NoLeader, "node %s has known no leader for %s", c.cfg.NodeID, c.cfg.Timing.Hold).
		WithHint("a majority of the voters must run and reach each other: see `kontiki peers`; retry under the same Idempotency-Key")
}

// stopProposals answers what is left when the cluster stops.
func (c *Cluster) stopProposals() { answerStopped(c.queue.shut()) }

func answerStopped(group []*proposal) {
	for _, p := range group {
		if p.sent {
			deliver([]*proposal{p}, nil, unknownOutcome("the node stopped before the answer to the write came"))
		} else {
			deliver([]*proposal{p}, nil, errStopping)
		}
	}
}
