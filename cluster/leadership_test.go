package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"kontiki/errs"
)

// roles runs the leader's role on a node and watches that there is never more than one at a time.
type roles struct {
	mu    sync.Mutex
	terms []uint64
	now   atomic.Int32
	most  atomic.Int32
	gate  chan struct{} // a role that has lost waits here before it returns; nil: it does not
}

func (r *roles) role(ctx context.Context, term uint64) {
	r.most.Store(max(r.most.Load(), r.now.Add(1)))
	r.mu.Lock()
	r.terms = append(r.terms, term)
	r.mu.Unlock()
	<-ctx.Done()
	if r.gate != nil {
		<-r.gate
	}
	r.now.Add(-1)
}

func (r *roles) begun() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.terms)
}

// run starts the role on a node; the function it gives waits for the loop's end.
func run(ctx context.Context, n *node, r *roles) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, r.role) }()
	return func() error { return <-done }
}

func TestRoleFollowsTheLeadership(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	ctx, cancel := context.WithCancel(soon(t))
	var all []*roles
	var waits []func() error
	for _, n := range g.nodes {
		r := &roles{}
		all, waits = append(all, r), append(waits, run(ctx, n, r))
	}
	for i := range 3 {
		g.until("the next role runs", func() bool {
			begun := 0
			for _, r := range all {
				begun += len(r.begun())
			}
			return begun > i
		})
		if i < 2 {
			g.must(g.leader().TransferLeadership(soon(t)))
		}
	}
	cancel()
	for _, wait := range waits {
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	var terms []uint64
	for _, r := range all {
		terms = append(terms, r.begun()...)
		if r.most.Load() > 1 {
			t.Error("two roles at once")
		}
	}
	slices.Sort(terms)
	if len(slices.Compact(terms)) != len(terms) || len(terms) < 3 {
		t.Errorf("terms %v", terms)
	}
}

// While the old role takes its time to end, the node loses and regains the leadership: that is a new term, which
// begins after the old role has returned.
func TestLostThenRegained(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(2)
	n := g.leader()
	r := &roles{gate: make(chan struct{})}
	wait := run(soon(t), n, r)
	g.until("the role runs", func() bool { return len(r.begun()) == 1 })
	g.must(n.TransferLeadership(soon(t)))
	g.must(g.leader().TransferLeadership(soon(t)))
	if g.follower().LeaderContact() < 0 || n.LeaderContact() != 0 {
		t.Error("they are in contact")
	}
	if back := g.leader(); back != n {
		t.Fatalf("%s leads", back.id)
	}
	if len(r.begun()) != 1 || r.now.Load() != 1 {
		t.Error("a second role beside the first")
	}
	close(r.gate)
	g.until("the role runs again", func() bool { return len(r.begun()) == 2 })
	if terms := r.begun(); terms[1] <= terms[0] || r.most.Load() != 1 {
		t.Errorf("terms %v, %d at once", terms, r.most.Load())
	}
	g.kill(n.id)
	if err := wait(); err != nil {
		t.Errorf("the cluster stopped: %v", err)
	}
}

func TestCloseHandsOver(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	leader := g.leader()
	g.must(leader.Close(soon(t)))
	if leader.view.elections.Load() > 1 {
		t.Error("it stood again")
	}
	g.kill(leader.id)
	next := g.leader()
	g.propose(next, "after")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := next.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNobodyToHandOverTo(t *testing.T) {
	g := newGroup(t, true, nil)
	g.form(1)
	n := g.leader()
	if err := n.TransferLeadership(soon(t)); errs.CodeOf(err) != errs.Unavailable {
		t.Error(err)
	}
	g.must(n.Close(soon(t)))
}
