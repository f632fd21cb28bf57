package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// stage is a real state machine with the agent of node n1 over fakes, in virtual time. Commands are applied at once.
type stage struct {
	t    *testing.T
	f    *fsm.FSM
	disk *disk
	log  journal

	mu      sync.Mutex
	index   uint64
	refuse  func(cmd fsm.Command) error // before a proposal of the agent is applied
	lost    func(cmd fsm.Command) error // after it was applied: its answer is lost
	reports int                         // proposals of the agent that were applied

	agent *Agent
	stop  func()
}

// journal is what the agent logs.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// applied is how many proposals of the agent have been accepted.
func (s *stage) applied() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports
}

// onStage runs a test in a bubble, over a cluster of n1 and n2, with n1's agent running.
func onStage(t *testing.T, adjust func(*fsm.Settings), test func(*stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, f: fsm.New(), disk: newDisk(t)}
		settings := fsm.DefaultSettings()
		settings.Queue = "all"
		if adjust != nil {
			adjust(&settings)
		}
		s.must(fsm.ClusterInit{ID: "c1", Settings: settings, Node: fsm.Node{ID: "n1", ClusterAddr: "n1"}, Token: fsm.Token{ID: "t", Name: "root", Hash: []byte("x")}})
		s.must(fsm.JoinTokenCreate{ID: strings.Repeat("0", 64), ExpiresAt: 1 << 50})
		s.must(fsm.NodeJoin{TokenID: strings.Repeat("0", 64), Node: fsm.Node{ID: "n2", ClusterAddr: "n2"}})
		s.start()
		defer func() { s.stop() }()
		test(s)
	})
}

// start starts an agent over what is on the disk; the one before must have been stopped.
func (s *stage) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.agent = New(Config{Node: "n1", Replica: s.f, Proposer: s, Blobs: s.disk, Sites: s.disk, Engine: s.disk, Prober: s.disk, Logs: s.disk, Inspector: s.disk,
		Logger: slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	a := s.agent
	go func() { defer close(done); a.Run(ctx) }()
	s.stop = func() { cancel(); <-done }
}

// Propose implements Proposer; it answers as cluster.Cluster does.
func (s *stage) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	s.mu.Lock()
	refuse, lost := s.refuse, s.lost
	s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fsm.Result{}, errs.New(errs.Unavailable, "not sent: %w", err)
	}
	if refuse != nil {
		if err := refuse(cmd); err != nil {
			return fsm.Result{}, err
		}
	}
	r := s.apply(cmd)
	if lost != nil {
		if err := lost(cmd); err != nil {
			return fsm.Result{}, err
		}
	}
	if r.Err != nil {
		return r, r.Err
	}
	s.mu.Lock()
	s.reports++
	s.mu.Unlock()
	return r, nil
}

func (s *stage) apply(cmd fsm.Command) fsm.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index++
	return s.f.Apply(s.index, 1, fsm.EncodeEntry([][]byte{cmd.Encode()}))[0]
}

func (s *stage) try(b fsm.Body) error {
	if r := s.apply(fsm.NewCommand(b, "test")); r.Err != nil {
		return r.Err
	}
	return nil
}

// must applies a command and waits until the agent has done what it can.
func (s *stage) must(b fsm.Body) {
	s.t.Helper()
	if err := s.try(b); err != nil {
		s.t.Fatalf("%s %+v: %v", b.Kind(), b, err)
	}
	synctest.Wait()
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func id(n int) string { return fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G%04d", n) }

// queue queues deployment n of the project; its archive is on n1.
func (s *stage) queue(n int, project string) {
	s.t.Helper()
	digest := digestOf([]byte(id(n)))
	s.disk.set(func() { s.disk.remote[digest] = true })
	s.must(fsm.DeploymentCreate{ID: id(n), Project: project, Create: true, Spec: fsm.DefaultSpec(), Nodes: []string{"n1"},
		Source: fsm.Source{Type: fsm.SourceUpload, Digest: digest, Size: 10, Format: "tar"}})
}

// deploy queues and starts a deployment that n1 builds and is the target of.
func (s *stage) deploy(n int, project string) {
	s.t.Helper()
	s.queue(n, project)
	s.must(fsm.DeploymentStart{ID: id(n), Builder: "n1", Targets: []string{"n1"}})
}

func (s *stage) get(n int) *fsm.Deployment {
	s.t.Helper()
	d := s.f.State().Deployment(id(n))
	if d == nil {
		s.t.Fatalf("there is no deployment %d", n)
	}
	return d
}

func (s *stage) want(n int, status fsm.Status) *fsm.Deployment {
	s.t.Helper()
	d := s.get(n)
	if d.Status != status {
		s.t.Fatalf("deployment %d is %s in %s, want %s; steps %+v\n%s", n, d.Status, d.Phase, status, d.Steps, s.log.String())
	}
	return d
}

// failed gives the failure of n1's step at hand.
func (s *stage) failed(n int, code errs.Code) *fsm.Failure {
	s.t.Helper()
	d := s.get(n)
	step := d.Step(d.Phase, "n1")
	if step == nil || step.State != fsm.StepFailed || step.Failure == nil {
		s.t.Fatalf("deployment %d is %s in %s, step %+v, not failed\n%s", n, d.Status, d.Phase, step, s.log.String())
	}
	if step.Failure.Code != code {
		s.t.Fatalf("the step failed with %s, want %s: %+v", step.Failure.Code, code, step.Failure)
	}
	return step.Failure
}

// retry orders another attempt of n1's step at hand, as a leader would.
func (s *stage) retry(n int) {
	s.t.Helper()
	d := s.get(n)
	step := d.Step(d.Phase, "n1")
	s.must(fsm.DeploymentRetry{ID: d.ID, Phase: d.Phase, Node: "n1", Attempt: step.Attempt, Reason: "again"})
}

// order orders a repair of n1 and gives it as it is when the agent has done what it can.
func (s *stage) order(b fsm.RepairOrder) *fsm.Repair {
	s.t.Helper()
	b.Node = "n1"
	s.must(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.f.State().Repairs() {
		if r.Kind == b.Repair && r.Deployment == b.Deployment && r.Project == b.Project && r.Digest == b.Digest {
			return r
		}
	}
	s.t.Fatalf("the order %+v is nowhere", b)
	return nil
}

func (s *stage) repair(id string) *fsm.Repair { return s.f.State().Repair(id) }

func (s *stage) wantDisk(want ...string) {
	s.t.Helper()
	if got := s.disk.has(); got != strings.Join(want, "\n") {
		s.t.Fatalf("on the disk is\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func (s *stage) on(refuse, lost func(cmd fsm.Command) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse, s.lost = refuse, lost
}
