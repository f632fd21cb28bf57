package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

func TestProposeThroughEveryNode(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	for id, n := range g.nodes {
		r := g.propose(n, "from-"+id)
		if n.machine.Applied() < r.Index || !n.machine.has("from-"+id) {
			t.Errorf("%s answered before it had applied its own write", id)
		}
		if again := g.propose(n, "from-"+id); !again.Replayed || again.Index != r.Index {
			t.Errorf("%s: a second time %+v, first %+v", id, again, r)
		}
	}
	want := g.leader().machine.ids()
	for id, n := range g.nodes {
		g.until("all apply the same", func() bool { return slices.Equal(n.machine.ids(), want) })
		if len(want) != 3 {
			t.Errorf("%s: %v", id, want)
		}
	}
}

// load proposes through all running nodes at once until it is told to stop, and gives the IDs that were acknowledged.
func (g *group) load(workers int) (stop func() []string) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var acknowledged []string
	var done sync.WaitGroup
	i := 0
	for id, n := range g.nodes {
		c := n.Cluster // the node may be killed meanwhile: then its errors do not count
		for w := range workers {
			done.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					cmd := command(fmt.Sprintf("%s-%d-%d", id, w, i))
					_, err := c.Propose(context.WithoutCancel(ctx), cmd)
					if errors.Is(err, errStopping) || errs.CodeOf(err) == errs.Timeout {
						return
					}
					if err != nil {
						g.t.Errorf("%s: %v", cmd.ID, err)
						return
					}
					mu.Lock()
					acknowledged = append(acknowledged, cmd.ID)
					mu.Unlock()
				}
			})
		}
		i++
	}
	g.until("the load is on", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged) > 50
	})
	return func() []string {
		cancel()
		done.Wait()
		return acknowledged
	}
}

// agree waits until all running nodes have applied the same and checks that every acknowledged write is in it, once.
func (g *group) agree(acknowledged []string) {
	g.t.Helper()
	leader := g.leader()
	g.propose(leader, "the-end")
	want := leader.machine.ids()
	for _, n := range g.nodes {
		if n.Cluster != nil {
			g.until("all apply the same", func() bool { return slices.Equal(n.machine.ids(), want) })
		}
	}
	times := map[string]int{}
	for _, id := range want {
		times[id]++
	}
	for _, id := range acknowledged {
		if times[id] != 1 {
			g.t.Errorf("%s was acknowledged and applied %d times", id, times[id])
		}
	}
	if len(times) != len(want) {
		g.t.Errorf("%d commands took effect %d times", len(times), len(want))
	}
}

func TestLeaderDiesUnderLoad(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	stop := g.load(4)
	for range 2 {
		leader := g.leader().id
		g.kill(leader)
		next := g.leader()
		if next.id == leader {
			t.Fatal("the dead lead")
		}
		g.propose(next, "after-"+leader)
		g.open(leader)
	}
	g.agree(stop())
}

func TestHandOverUnderLoad(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	stop := g.load(2)
	for range 3 {
		leader := g.leader()
		if err := leader.TransferLeadership(soon(t)); err != nil {
			t.Fatal(err)
		}
		if next := g.leader(); next == leader {
			t.Error("still the same leader")
		}
	}
	if err := g.follower().TransferLeadership(soon(t)); err != nil {
		t.Errorf("a follower has nothing to hand over: %v", err)
	}
	g.agree(stop())
}

// While one entry is being written everything that comes makes up the next ones.
func TestCommandsAreGrouped(t *testing.T) {
	gate := &gatedLog{}
	g := newGroup(t, true, gate.install)
	g.form(1)
	n := g.nodes["n1"]
	g.propose(n, "first")
	before := n.Stats().LastIndex
	open := gate.shut()
	var done sync.WaitGroup
	const commands = 600
	for i := range commands {
		done.Go(func() { g.propose(n, fmt.Sprint("c", i)) })
	}
	// One may be alone in the entry that waits at the gate.
	g.until("they wait", func() bool { return n.Stats().Queued >= commands-maxGroupCommands })
	queued := n.Stats().Queued
	open()
	done.Wait()
	most := uint64(1 + (queued+maxGroupCommands-1)/maxGroupCommands + commands - queued)
	if entries := n.Stats().LastIndex - before; entries > most {
		t.Errorf("%d commands, of which %d waited, took %d entries", commands, queued, entries)
	}
	if got := len(n.machine.ids()); got != commands+1 {
		t.Errorf("%d of %d commands", got, commands)
	}
}

func TestGroupsAreBounded(t *testing.T) {
	q := queue{wake: make(chan struct{}, 1)}
	add := func(size int) *proposal {
		p, err := newProposal(make([]byte, size), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.add(p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for range maxGroupCommands + 5 {
		add(1)
	}
	gone := add(1)
	if q.leave(gone) {
		t.Error("it was not sent")
	}
	add(maxGroupBytes)
	add(1)
	for _, want := range []int{maxGroupCommands, 5, 1, 1, 0} {
		group := q.take()
		if len(group) != want {
			t.Errorf("a group of %d, not %d", len(group), want)
		}
		for _, p := range group {
			if !p.sent || p == gone {
				t.Error("taken is sent, and what nobody waits for stays")
			}
		}
	}
	if _, err := newProposal(make([]byte, maxGroupBytes+1), false); errs.CodeOf(err) != errs.TooLarge {
		t.Errorf("too large: %v", err)
	}
	for range maxQueued {
		add(1)
	}
	p, _ := newProposal(nil, true)
	if err := q.add(p); errs.CodeOf(err) != errs.TooMany {
		t.Errorf("too many: %v", err)
	}
	if left := q.shut(); len(left) != maxQueued || !errors.Is(q.add(p), errStopping) || q.putBack(left) {
		t.Errorf("%d left", len(left))
	}
}

func TestProposeRefuses(t *testing.T) {
	g := newGroup(t, true, nil)
	n := g.open("n1") // in no group: there is no leader
	large := fsm.Command{ID: "large", Body: bytes.Repeat([]byte{1}, maxGroupBytes)}
	if _, err := n.Propose(soon(t), large); errs.CodeOf(err) != errs.TooLarge {
		t.Errorf("large: %v", err)
	}
	ctx, cancel := context.WithTimeout(soon(t), time.Millisecond)
	defer cancel()
	if _, err := n.Propose(ctx, command("late")); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("never sent: %v", err)
	}
	g.must(n.Bootstrap("n1"))
	if err := n.Bootstrap("n1"); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second group: %v", err)
	}
	g.propose(n, "first")
	c := n.Cluster
	g.kill("n1")
	if _, err := c.Propose(soon(t), command("after")); !errors.Is(err, errStopping) {
		t.Errorf("stopped: %v", err)
	}
	if _, err := c.ReadIndex(soon(t)); err == nil {
		t.Error("read from a stopped node")
	}
	if err := c.Close(soon(t)); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// refusing is a state machine that refuses every command.
type refusing struct{ *record }

func (r refusing) Apply(index, term uint64, entry []byte) []fsm.Result {
	results := r.record.Apply(index, term, entry)
	for i := range results {
		results[i].Err = errs.New(errs.Exists, "it exists")
	}
	return results
}

func TestRefusalsComeAsErrors(t *testing.T) {
	g := newGroup(t, false, func(c *Config) { c.Machine = refusing{c.Machine.(*record)} })
	g.form(2)
	for id, n := range g.nodes {
		r, err := n.Propose(soon(t), command(id))
		if errs.CodeOf(err) != errs.Exists || r.Index == 0 || r.Err == nil {
			t.Errorf("%s: %+v, %v", id, r, err)
		}
	}
}

func TestNoLeaderWithinHold(t *testing.T) {
	g := newGroup(t, false, func(c *Config) { c.Timing.Hold = 400 * time.Millisecond })
	g.form(2)
	g.propose(g.leader(), "first")
	g.kill(g.follower().id)
	var left *node
	for _, n := range g.nodes {
		if n.Cluster != nil {
			left = n
		}
	}
	// What was on its way may have been sent; what comes later was not. Both hear that there is no leader.
	for _, id := range []string{"one", "two"} {
		_, err := left.Propose(soon(t), command(id))
		if errs.CodeOf(err) != errs.NoLeader || errs.From(err).Hint == "" {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := left.ReadIndex(soon(t)); errs.CodeOf(err) != errs.NoLeader {
		t.Errorf("read: %v", err)
	}
	if err := left.CheckRemoval("n1"); errs.CodeOf(err) != errs.NoLeader {
		t.Errorf("check: %v", err)
	}
}
