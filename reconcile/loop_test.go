package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

// stage is a loop over a real state machine, in virtual time: what it proposes is applied at once.
type stage struct {
	*world
	mu     sync.Mutex
	silent map[string]time.Duration
	cut    error // given for every proposal instead of applying it
	log    strings.Builder
	says   answers // what the nodes say they have
	stop   func()
}

// Propose implements Proposer.
func (s *stage) Propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut != nil {
		return fsm.Result{}, s.cut
	}
	return s.apply(cmd)[0], nil
}

func (s *stage) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *stage) silence() map[string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]time.Duration{}
	for n, d := range s.silent {
		out[n] = d
	}
	return out
}

// do applies a command from outside the loop.
func (s *stage) do(b fsm.Body) {
	s.t.Helper()
	s.set(func() { s.must(b) })
}

// run starts a loop for a term; the one before must have been stopped.
func (s *stage) run(term uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	l := NewLoop(Config{Node: "n1", Term: term, Replica: s.f, Proposer: s, Silence: s.silence, Inventory: s.inventory,
		Logger: slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	go func() { defer close(done); l.Run(ctx) }()
	s.stop = func() { cancel(); <-done }
}

// onStage runs a test in a bubble, with a leader's loop of term 1 over a cluster of n1, n2 and n3.
func onStage(t *testing.T, adjust func(*fsm.Settings), test func(*stage)) {
	synctest.Test(t, func(t *testing.T) {
		settings := fsm.DefaultSettings()
		if adjust != nil {
			adjust(&settings)
		}
		s := &stage{world: newWorld(t, settings, "n1", "n2", "n3"), silent: map[string]time.Duration{"n1": 0, "n2": 0, "n3": 0},
			says: answers{asked: map[string]int{}}}
		s.run(1)
		defer func() { s.stop() }()
		test(s)
	})
}

// pass lets virtual time go by and waits until everybody has done what that brings.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *stage) queue(name, project string) {
	s.t.Helper()
	s.set(func() { s.create(name, project, fsm.ReplicasAll, "n1") })
	synctest.Wait()
}

func (s *stage) wantStatus(name string, status fsm.Status) *fsm.Deployment {
	s.t.Helper()
	d := s.deployment(name)
	if d.Status != status {
		s.t.Fatalf("%s is %s in %s, want %s; %v", name, d.Status, d.Phase, status, d.Failure)
	}
	return d
}

func (s *stage) wantAttempt(name string, want int) {
	s.t.Helper()
	if d := s.wantStatus(name, fsm.StatusRunning); d.Attempt != want {
		s.t.Fatalf("%s is in attempt %d, want %d", name, d.Attempt, want)
	}
}

func (s *stage) fails(name, node string, transient bool) {
	s.t.Helper()
	s.set(func() {
		if err := s.report(name, node, &fsm.Failure{Code: errs.Unavailable, Message: "no", Transient: transient}); err != nil {
			s.t.Fatal(err)
		}
	})
	synctest.Wait()
}

// A deployment whose node says nothing is tried again each time it has been silent for as long as "stuck" says, and
// given up after the last attempt.
func TestStuckRetriedThenFailed(t *testing.T) {
	onStage(t, func(s *fsm.Settings) { s.MaxAttempts = 3 }, func(s *stage) {
		s.queue("d1", "blog")
		pass(4 * time.Minute)
		s.wantAttempt("d1", 1)
		pass(2 * time.Minute)
		s.wantAttempt("d1", 2)
		pass(5 * time.Minute)
		s.wantAttempt("d1", 3)
		pass(5 * time.Minute)
		d := s.wantStatus("d1", fsm.StatusFailed)
		if d.Failure == nil || d.Failure.Code != errs.Stuck || d.Failure.Node != d.Builder || d.Failure.Hint == "" {
			t.Errorf("failure %+v", d.Failure)
		}
	})
}

// Heartbeats keep a deployment from being stuck; a phase that never ends is ended by its deadline all the same.
func TestHeartbeatsAndDeadline(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.queue("d1", "blog")
		for minute := range 13 {
			d := s.wantStatus("d1", fsm.StatusRunning)
			s.do(fsm.StepProgress{StepKey: fsm.StepKey{Deployment: d.ID, Phase: d.Phase, Attempt: 1, Node: d.Builder}, Percent: minute})
			pass(time.Minute)
		}
		s.wantAttempt("d1", 1)
		s.do(fsm.StepProgress{StepKey: fsm.StepKey{Deployment: s.id("d1"), Phase: fsm.PhasePullingSource, Attempt: 1, Node: "n1"}})
		pass(3 * time.Minute) // 10 min of deadline and 5 of grace
		if d := s.wantStatus("d1", fsm.StatusFailed); d.Failure.Code != errs.Deadline {
			t.Errorf("failure %+v", d.Failure)
		}
	})
}

// The pause before another attempt doubles: 500 ms, 1 s, 2 s.
func TestBackOffDoubles(t *testing.T) {
	onStage(t, func(s *fsm.Settings) { s.MaxAttempts = 4 }, func(s *stage) {
		s.queue("d1", "blog")
		for attempt, wait := range []time.Duration{500, 1000, 2000} {
			s.wantAttempt("d1", attempt+1)
			s.fails("d1", "n1", true)
			pass((wait - 50) * time.Millisecond)
			s.wantAttempt("d1", attempt+1)
			pass(300 * time.Millisecond) // a tick later at most
		}
		s.wantAttempt("d1", 4)
		s.fails("d1", "n1", true)
		s.wantStatus("d1", fsm.StatusFailed)
	})
}

// What cannot get better by trying again fails at once, and the project's next deployment starts.
func TestFinalFailureStartsTheNext(t *testing.T) {
	onStage(t, func(s *fsm.Settings) { s.Queue = "all" }, func(s *stage) {
		s.queue("d1", "blog")
		s.queue("d2", "blog")
		s.wantStatus("d2", fsm.StatusQueued)
		s.fails("d1", "n1", false)
		s.wantStatus("d1", fsm.StatusFailed)
		s.wantStatus("d2", fsm.StatusRunning)
	})
}

func (s *stage) wantNode(id string, state fsm.NodeState) {
	s.t.Helper()
	pass(250 * time.Millisecond) // one tick
	if got := s.f.State().Node(id); got.State != state {
		s.t.Fatalf("%s is %s (%s), want %s", id, got.State, got.Reason, state)
	}
}

func (s *stage) hush(id string, d time.Duration) { s.set(func() { s.silent[id] = d }) }

func TestAwayLostReady(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		for _, step := range []struct {
			silent time.Duration
			want   fsm.NodeState
		}{{time.Second, fsm.NodeReady}, {4 * time.Second, fsm.NodeAway}, {time.Minute, fsm.NodeLost}, {time.Second, fsm.NodeLost}, {0, fsm.NodeReady}} {
			s.hush("n2", step.silent)
			s.wantNode("n2", step.want)
		}
	})
}

// A builder that is gone hands over within a tick; what the first one reports afterwards is refused.
func TestLostBuilderHandsOver(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.queue("d1", "blog")
		first := s.wantStatus("d1", fsm.StatusRunning).Builder
		s.hush(first, 5*time.Second)
		pass(250 * time.Millisecond)
		d := s.wantStatus("d1", fsm.StatusRunning)
		if d.Builder == first || d.Attempt != 2 {
			t.Fatalf("builder %s, attempt %d", d.Builder, d.Attempt)
		}
		s.set(func() {
			if err := s.report("d1", first, nil); errs.CodeOf(err) != errs.StaleReport {
				t.Errorf("the first builder's report: %v", err)
			}
			s.until("d1", fsm.PhaseCopyingFiles)
		})
	})
}

// With all targets gone it waits; it goes on with the one that comes back. The others remove what they had begun before
// they get the release in their turn.
func TestAllTargetsLostAndOneBack(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.queue("d1", "blog")
		s.set(func() { s.until("d1", fsm.PhaseCopyingFiles) })
		for _, n := range []string{"n1", "n2", "n3"} {
			s.hush(n, 5*time.Second)
		}
		pass(time.Minute)
		s.wantAttempt("d1", 1)
		s.hush("n3", 0)
		pass(time.Second)
		if d := s.wantStatus("d1", fsm.StatusRunning); !slices.Equal(d.Targets, []string{"n3"}) {
			t.Fatalf("targets %v", d.Targets)
		}
		s.set(func() { s.until("d1", fsm.PhaseActive) })
		s.wantStatus("d1", fsm.StatusActive)
		s.hush("n1", 0)
		pass(time.Second)
		for _, want := range []fsm.RepairKind{fsm.RepairCleanup, fsm.RepairPlace} {
			open := orders(s.f.State(), "n1")
			if len(open) != 1 || open[0].Kind != want {
				t.Fatalf("n1 is back and gets %+v, want %s", open, want)
			}
			s.do(fsm.RepairReport{ID: open[0].ID, Node: "n1", Attempt: 1, Instance: fsm.Instance{Node: "n1"}})
			pass(time.Second)
		}
	})
}

func orders(s *fsm.State, node string) (open []*fsm.Repair) {
	for r := range s.PendingRepairs(node) {
		open = append(open, r)
	}
	return open
}

// Thirty projects want to build: no node builds more than its share at any time, every project gets its turn, in the
// order of asking.
func TestQueueIsFairAndBuildersLimited(t *testing.T) {
	onStage(t, func(s *fsm.Settings) { s.Builds, s.Queue = 2, "all" }, func(s *stage) {
		for i := range 30 {
			s.queue(fmt.Sprintf("d%d", i), fmt.Sprintf("site-%d", i))
		}
		for i := range 30 {
			load := map[string]int{}
			for d := range s.f.State().DeploymentsIn(fsm.StatusRunning) {
				load[d.Builder]++
			}
			for n, builds := range load {
				if builds > 2 {
					t.Fatalf("%s builds %d at a time", n, builds)
				}
			}
			s.wantStatus(fmt.Sprintf("d%d", i), fsm.StatusRunning)
			s.set(func() { s.until(fmt.Sprintf("d%d", i), fsm.PhaseActive) })
			synctest.Wait()
		}
	})
}

// A new leader counts anew: what its predecessor saw is not held against anybody, and what the predecessor decided
// and commits late is refused.
func TestNewLeaderCountsAnew(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.queue("d1", "blog")
		pass(4 * time.Minute)
		s.stop()
		s.set(func() { s.term = 2 })
		s.run(2)
		pass(4 * time.Minute) // eight in all, four of them under this leader
		s.wantAttempt("d1", 1)
		pass(2 * time.Minute)
		s.wantAttempt("d1", 2)
	})
}

func TestWhatAnOldTermDecidedIsRefused(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.set(func() { s.term = 2 }) // another node leads, and this one's loop has not heard of it
		s.queue("d1", "blog")
		pass(time.Second)
		s.wantStatus("d1", fsm.StatusQueued)
		s.hush("n2", time.Minute)
		s.wantNode("n2", fsm.NodeReady)
		s.stop()
		s.run(2)
		s.wantNode("n2", fsm.NodeLost)
		s.wantStatus("d1", fsm.StatusRunning)
	})
}

// A decision that could not be committed is taken again, and the log says what happened.
func TestFailedProposalsAreMadeAgain(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.set(func() { s.cut = errs.New(errs.NoLeader, "cut off") })
		s.queue("d1", "blog")
		pass(time.Second)
		s.wantStatus("d1", fsm.StatusQueued)
		s.set(func() { s.cut = nil })
		pass(time.Second)
		s.wantStatus("d1", fsm.StatusRunning)
		s.stop()
		if !strings.Contains(s.log.String(), "a decision was not committed") {
			t.Error("nothing is logged")
		}
		s.stop = func() {}
	})
}

// The points around a commit: an error before it makes the pass as if it had not been, one after it changes nothing.
func TestFaultPoints(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		if err := fault.Arm("reconcile.commit.before=error,reconcile.commit.after=error", t.TempDir()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = fault.Arm("", "") }() // disarming cannot fail
		s.queue("d1", "blog")
		s.wantStatus("d1", fsm.StatusQueued)
		pass(time.Second)
		s.wantStatus("d1", fsm.StatusRunning)
	})
}
