package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"kontiki/errs"
	"kontiki/fault"
)

// A barrier or a check of leadership that is queued when Raft's main loop ends is never answered: those futures know no
// shutdown, and who waits on one cannot be woken. A node that stops does not wait for them (settle); the two goroutines
// that do end with the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("kontiki/cluster.(*Cluster).await.func1"),
		goleak.IgnoreAnyFunction("kontiki/cluster.(*Cluster).settle.func1"))
}

// gatedLog is a log whose writes wait while its gate is shut, like a disk that does not answer.
type gatedLog struct {
	raft.LogStore
	mu   sync.Mutex
	wait chan struct{}
}

// install puts it under n1.
func (l *gatedLog) install(c *Config) {
	if c.NodeID == "n1" {
		c.wrap = func(s stores) stores { l.LogStore, s.log = s.log, l; return s }
	}
}

func (l *gatedLog) shut() (open func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	l.wait = gate
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.wait = nil
		close(gate)
	})
}

func (l *gatedLog) StoreLogs(logs []*raft.Log) error {
	l.mu.Lock()
	gate := l.wait
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return l.LogStore.StoreLogs(logs)
}

// brokenStore fails one kind of access once it is told to.
type brokenStore struct {
	raft.LogStore
	raft.StableStore
	read, write, set, truncate atomic.Pointer[error]
}

func (b *brokenStore) install(c *Config) {
	if c.NodeID == "n1" {
		c.wrap = func(s stores) stores {
			b.LogStore, b.StableStore = s.log, s.stable
			s.log, s.stable = b, b
			return s
		}
	}
}

func failing(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}

func (b *brokenStore) GetLog(i uint64, l *raft.Log) error {
	if err := failing(&b.read); err != nil {
		return err
	}
	return b.LogStore.GetLog(i, l)
}

func (b *brokenStore) StoreLogs(l []*raft.Log) error {
	if err := failing(&b.write); err != nil {
		return err
	}
	return b.LogStore.StoreLogs(l)
}

func (b *brokenStore) Set(k, v []byte) error {
	if err := failing(&b.set); err != nil {
		return err
	}
	return b.StableStore.Set(k, v)
}

func (b *brokenStore) DeleteRange(first, last uint64) error {
	if err := failing(&b.truncate); err != nil {
		return err
	}
	return b.LogStore.DeleteRange(first, last)
}

// lead makes n1 the leader.
func (g *group) lead(id string) *node {
	g.t.Helper()
	g.until(id+" leads", func() bool {
		leader := g.leader()
		if leader.id != id {
			leader.TransferLeadership(soon(g.t)) // it may go to another one: then again
		}
		return leader.id == id
	})
	return g.nodes[id]
}

// failed waits for the error a node ends with.
func failed(t *testing.T, n *node) error {
	t.Helper()
	select {
	case err := <-n.Failed():
		return err
	case <-soon(t).Done():
		t.Fatal("the failure does not show")
		return nil
	}
}

// A leader whose disk is full acknowledges nothing more, says why, and the others go on; with room on the disk again
// it comes back and catches up.
func TestDiskFullUnderTheLeader(t *testing.T) {
	broken := &brokenStore{}
	g := newGroup(t, false, broken.install)
	g.form(3)
	n := g.lead("n1")
	full := error(syscall.ENOSPC)
	broken.write.Store(&full)
	_, err := n.Propose(soon(t), command("on a full disk"))
	if err == nil || errs.CodeOf(err) != errs.Timeout {
		t.Errorf("the outcome is unknown: %v", err)
	}
	if err := failed(t, n); errs.CodeOf(err) != errs.DiskFull || !strings.Contains(err.Error(), n.store.path) {
		t.Errorf("it must name the path: %v", err)
	}
	g.kill("n1")
	g.propose(g.leader(), "meanwhile")
	broken.write.Store(nil)
	back := g.open("n1")
	g.until("it catches up", func() bool { return slices.Equal(back.machine.ids(), g.leader().machine.ids()) })
}

func TestFailingStoreEndsTheNode(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(*brokenStore, *error)
		code    errs.Code
		provoke func(g *group, n *node)
	}{
		"a follower cannot write":     {func(b *brokenStore, e *error) { b.write.Store(e) }, errs.Unavailable, nil},
		"the term cannot be written":  {func(b *brokenStore, e *error) { b.set.Store(e) }, errs.Unavailable, handOver},
		"an entry cannot be read":     {func(b *brokenStore, e *error) { b.read.Store(e) }, errs.StateCorrupt, fallBehind},
		"the log cannot be truncated": {func(b *brokenStore, e *error) { b.truncate.Store(e) }, errs.Unavailable, compact},
	} {
		t.Run(name, func(t *testing.T) {
			broken := &brokenStore{}
			g := newGroup(t, true, func(c *Config) {
				broken.install(c)
				c.Snapshots.Trailing = 1
			})
			g.form(3)
			g.until("another one leads", func() bool {
				if leader := g.leader(); leader.id == "n1" {
					leader.TransferLeadership(soon(t))
					return false
				}
				return true
			})
			n := g.nodes["n1"]
			eio := error(syscall.EIO)
			c.breakIt(broken, &eio)
			if c.provoke != nil {
				c.provoke(g, n)
			}
			g.propose(g.leader(), "the others go on")
			if err := failed(t, n); errs.CodeOf(err) != c.code || errs.From(err).Hint == "" {
				t.Errorf("%v", err)
			}
		})
	}
}

// handOver makes a new term; whether it comes about by this or by an election is all the same.
func handOver(g *group, _ *node) { g.leader().TransferLeadership(soon(g.t)) }

// fallBehind has the node store more entries at once than the cache holds, so that it reads some of them again.
func fallBehind(g *group, n *node) {
	g.memory.Isolate(n.id)
	for i := range 40 {
		g.propose(g.leader(), fmt.Sprint("more-", i))
	}
	g.memory.Heal()
}

func compact(g *group, n *node) {
	for i := range 10 {
		g.propose(g.leader(), fmt.Sprint("more-", i))
	}
	n.Snapshot(soon(g.t)) // it fails at truncating the log, which is what is looked for
}

// A leader whose disk hangs gives way although it cannot say so.
func TestHangingDisk(t *testing.T) {
	gate := &gatedLog{}
	g := newGroup(t, false, func(c *Config) {
		gate.install(c)
		c.Timing.Stall = 50 * time.Millisecond
	})
	g.form(3)
	old := g.lead("n1")
	open := gate.shut()
	defer open()
	done := make(chan error, 1)
	go func() {
		_, err := old.Propose(soon(t), command("into the hanging disk"))
		done <- err
	}()
	g.until("another one leads", func() bool {
		for _, n := range g.nodes {
			if n != old && n.IsLeader() && g.follow(n) {
				return true
			}
		}
		return false
	})
	if !old.Stats().DiskStalled {
		t.Error("it does not show")
	}
	open()
	if err := <-done; err != nil {
		t.Errorf("the write goes on under the next leader: %v", err)
	}
	g.until("it has lost", func() bool { return !old.IsLeader() || old.raft.CurrentTerm() > 2 })
	g.agree([]string{"into the hanging disk"})
}

// Every fault point around an effect is reached by an ordinary life, and an error there loses no write.
func TestFaultPoints(t *testing.T) {
	for _, point := range []string{"cluster.store.before", "cluster.store.after", "cluster.term.before", "cluster.term.after"} {
		t.Run(point, func(t *testing.T) {
			g := newGroup(t, false, nil)
			g.form(3)
			g.propose(g.leader(), "before")
			arm(t, point)
			handOver(g, nil)
			var hit *node
			g.until("one has failed", func() bool {
				for _, n := range g.nodes {
					if n.life.ctx.Err() != nil {
						hit = n
					}
				}
				return hit != nil
			})
			if err := failed(t, hit); !errors.Is(err, fault.ErrInjected) {
				t.Error(err)
			}
			g.kill(hit.id)
			g.propose(g.leader(), "after")
			g.open(hit.id)
			g.agree([]string{"before", "after"})
		})
	}
	for _, point := range []string{"cluster.forward.before", "cluster.forward.after"} {
		t.Run(point, func(t *testing.T) {
			g := newGroup(t, true, nil)
			g.form(3)
			arm(t, point)
			g.propose(g.follower(), "through a fault") // it is tried again
			g.agree([]string{"through a fault"})
		})
	}
	for _, point := range []string{"cluster.members.before", "cluster.members.after"} {
		t.Run(point, func(t *testing.T) {
			g := newGroup(t, true, nil)
			g.form(1)
			g.open("n2")
			arm(t, point)
			g.join(2)
		})
	}
	for _, point := range []string{"cluster.snapshot.before", "cluster.snapshot.after", "cluster.truncate.before", "cluster.truncate.after"} {
		t.Run(point, func(t *testing.T) {
			g := newGroup(t, false, func(c *Config) { c.Snapshots.Trailing = 1 })
			g.form(1)
			for i := range 5 {
				g.propose(g.leader(), fmt.Sprint(i))
			}
			want := g.leader().machine.ids()
			arm(t, point)
			if err := g.leader().Snapshot(soon(t)); err == nil {
				t.Error("the snapshot succeeds")
			}
			g.kill("n1")
			g.open("n1")
			g.until("it has everything", func() bool { return slices.Equal(g.nodes["n1"].machine.ids(), want) })
		})
	}
}

// arm has a point fail once, and asserts at the test's end that it did.
func arm(t *testing.T, point string) {
	t.Helper()
	dir := t.TempDir()
	if err := fault.Arm(point+"=error", dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fault.Point(point); err != nil {
			t.Errorf("%s did not fire", point)
		}
		if err := fault.Arm("", ""); err != nil {
			t.Error(err)
		}
	})
}

// Raft that is shut down by a failure in mid-load leaves committed entries unanswered; stopping must not wait for them.
func TestALeaderThatFailsUnderLoadStops(t *testing.T) {
	for range 5 {
		broken := &brokenStore{}
		g := newGroup(t, true, func(c *Config) {
			broken.install(c)
			c.Timing.Try = 100 * time.Millisecond
			c.Snapshots.Trailing = 1
		})
		g.form(1)
		n := g.leader()
		var load sync.WaitGroup
		for w := range 8 {
			load.Go(func() {
				for i := 0; ; i++ {
					if _, err := n.Propose(soon(t), command(fmt.Sprint(w, "-", i))); err != nil {
						return
					}
				}
			})
		}
		g.until("the load is on", func() bool { return len(n.machine.ids()) > 20 })
		eio := error(syscall.EIO)
		broken.truncate.Store(&eio)
		n.Snapshot(soon(t)) // fails as it truncates the log
		if err := failed(t, n); errs.CodeOf(err) != errs.Unavailable {
			t.Error(err)
		}
		n.Cluster.Kill()
		load.Wait()
	}
}
