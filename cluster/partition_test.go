package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kontiki/errs"
)

// simulate runs a test with three nodes in memory and virtual time.
func simulate(t *testing.T, test func(t *testing.T, g *group)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, true, nil)
		g.form(3)
		test(t, g)
	})
}

func TestIsolatedLeaderAcknowledgesNothing(t *testing.T) {
	simulate(t, func(t *testing.T, g *group) {
		old := g.leader()
		g.propose(old, "before")
		g.memory.Isolate(old.id)
		// Nothing of what it is given from here on may be acknowledged on its side.
		_, err := old.Propose(soon(t), command("cut off"))
		if errs.CodeOf(err) != errs.NoLeader {
			t.Errorf("acknowledged, or another error: %v", err)
		}
		if _, err := old.ReadIndex(soon(t)); errs.CodeOf(err) != errs.NoLeader {
			t.Errorf("it gives an index: %v", err)
		}
		next := g.leader()
		if next == old {
			t.Fatal("it still leads")
		}
		g.propose(next, "on the other side")
		g.memory.Heal()
		g.until("it follows again", func() bool { return old.machine.has("on the other side") })
		g.agree([]string{"before", "on the other side"})
	})
}

// A write that an isolated leader has taken in, and that its proposer goes on waiting for, is committed by the next
// one after the partition heals.
func TestAWriteOutlivesAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, true, func(c *Config) { c.Timing.Hold = time.Hour })
		g.form(3)
		old := g.leader()
		g.memory.Isolate(old.id)
		done := make(chan error, 1)
		go func() {
			_, err := old.Propose(soon(t), command("patient"))
			done <- err
		}()
		g.until("another one leads", func() bool { return g.leader() != old })
		g.memory.Heal()
		if err := <-done; err != nil {
			t.Error(err)
		}
		g.agree([]string{"patient"})
	})
}

func TestReadIndexCoversEveryAcknowledgedWrite(t *testing.T) {
	simulate(t, func(t *testing.T, g *group) {
		for round := range 4 {
			old := g.leader()
			g.memory.Isolate(old.id)
			var next *node
			g.until("another one leads", func() bool { next = g.leader(); return next != old })
			id := fmt.Sprint("round-", round)
			g.propose(next, id)
			for _, n := range g.nodes {
				if n == old {
					continue
				}
				index, err := n.ReadIndex(soon(t))
				g.must(err)
				g.must(n.machine.Wait(soon(t), index))
				if !n.machine.has(id) {
					t.Errorf("%s reads at %d and misses %s", n.id, index, id)
				}
			}
			// The deposed leader may not know yet; whatever it answers, it is not an index without that write.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if index, err := old.ReadIndex(ctx); err == nil {
				t.Errorf("cut off, it gives index %d", index)
			}
			cancel()
			g.memory.Heal()
			index, err := old.ReadIndex(soon(t))
			g.must(err)
			g.must(old.machine.Wait(soon(t), index))
			if !old.machine.has(id) {
				t.Errorf("healed, it reads at %d and misses %s", index, id)
			}
		}
	})
}

func TestOneWayCuts(t *testing.T) {
	simulate(t, func(t *testing.T, g *group) {
		leader := g.leader()
		var ids []string
		for id := range g.nodes {
			if id != leader.id {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		for i, cut := range [][2]string{{leader.id, ids[0]}, {ids[0], leader.id}, {ids[0], ids[1]}} {
			g.memory.Cut(cut[0], cut[1])
			for _, n := range g.nodes {
				if n.id == cut[0] || n.id == cut[1] {
					continue // these may be on the wrong side of it
				}
				g.propose(n, fmt.Sprintf("cut-%d-%s", i, n.id))
			}
			g.memory.Heal()
			g.until("all have caught up", func() bool {
				want := g.leader().machine.ids()
				for _, n := range g.nodes {
					if !slices.Equal(n.machine.ids(), want) {
						return false
					}
				}
				return true
			})
		}
	})
}

// A leader that is stopped, not dead, keeps its connections open and answers nothing. A follower's write must not hang
// on it.
func TestForwardingSurvivesASilentLeader(t *testing.T) {
	simulate(t, func(t *testing.T, g *group) {
		follower, leader := g.follower(), g.leader()
		g.propose(follower, "a connection is open")
		g.memory.Partition(leader.id)
		g.propose(follower, "the leader is silent")
		if leader.machine.has("the leader is silent") {
			t.Error("it was reached")
		}
		g.memory.Heal()
		g.agree([]string{"the leader is silent"})
	})
}

// Followers that were away longer than the log reaches back are brought up by a snapshot.
func TestCatchUpBySnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, true, func(c *Config) { c.Snapshots = Snapshots{Threshold: 10, Trailing: 2, Interval: time.Second} })
		g.form(3)
		away := g.follower()
		g.kill(away.id)
		for i := range 50 {
			g.propose(g.leader(), fmt.Sprint("while-away-", i))
		}
		<-time.After(10 * time.Second) // of virtual time: snapshots are due
		g.open(away.id)
		g.agree([]string{"while-away-0", "while-away-49"})
		if g.leader().Stats().SnapshotIndex == 0 {
			t.Error("no snapshot was taken")
		}
	})
}

func TestTheWholeGroupRestarts(t *testing.T) {
	simulate(t, func(t *testing.T, g *group) {
		g.propose(g.follower(), "before")
		for id := range g.nodes {
			g.kill(id)
		}
		for id := range g.nodes {
			g.open(id)
		}
		g.agree([]string{"before"})
	})
}
