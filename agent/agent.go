package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// Config is what an Agent needs.
type Config struct {
	Node      string // this node's ID
	Replica   Replica
	Proposer  Proposer
	Blobs     Blobs
	Sites     Sites
	Engine    Engine
	Prober    Prober
	Logs      Logs
	Inspector Inspector
	Logger    *slog.Logger
	// Heartbeat is how often a running step shows that it lives (default 15 s).
	Heartbeat time.Duration
	// Jobs is how many jobs run at a time (default 32).
	Jobs int
}

// Agent carries out what the committed state asks of one node.
type Agent struct {
	cfg    Config
	slots  chan struct{} // for deployments' work
	upkeep chan struct{} // for repairs, which never hold up deployments
	done   chan struct{} // a job has ended

	locks   locks
	copied  copied
	jobs    map[jobKey]*job
	current map[string]string // project → deployment its current link is known to name
	seen    uint64            // active deployments changed up to here have been looked at
	settled settled
}

// The jobs that end by themselves, whatever the state asks for by then.
const (
	jobSwitch = "switch"
	jobResume = "resume"
)

// jobKey names one piece of work. For a step: deployment, phase and attempt; for a switch and a resume the project; for a
// repair its ID and attempt.
type jobKey struct {
	kind    string
	id      string
	phase   fsm.Phase
	attempt int
}

type job struct {
	cancel context.CancelFunc
	ended  chan struct{}
	wanted bool
}

// New makes an agent.
func New(cfg Config) *Agent {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 15 * time.Second
	}
	if cfg.Jobs == 0 {
		cfg.Jobs = 32
	}
	return &Agent{cfg: cfg, slots: make(chan struct{}, cfg.Jobs), upkeep: make(chan struct{}, max(1, cfg.Jobs/8)),
		done: make(chan struct{}, 1), jobs: map[jobKey]*job{}, current: map[string]string{}}
}

// Run works until ctx ends, then waits for its jobs.
func (a *Agent) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer a.drain()
	defer cancel()
	a.resumeAll(ctx, a.cfg.Replica.State())
	for ctx.Err() == nil {
		changed := a.cfg.Replica.Changed()
		a.sweep(ctx, a.cfg.Replica.State())
		select {
		case <-changed:
		case <-a.done:
		case <-ctx.Done():
		}
	}
}

func (a *Agent) drain() {
	for _, j := range a.jobs {
		j.cancel()
		<-j.ended
	}
}

// sweep starts what the state asks of this node and is not under way, and cancels what it no longer asks for. Jobs that
// have ended are forgotten first: what they stood in the way of begins now, not with the next change of the state.
func (a *Agent) sweep(ctx context.Context, s *fsm.State) {
	for key, j := range a.jobs {
		j.wanted = false
		select {
		case <-j.ended:
			delete(a.jobs, key)
		default:
		}
	}
	a.sweepSteps(ctx, s)
	a.sweepRepairs(ctx, s)
	a.sweepActive(ctx, s)
	for key, j := range a.jobs {
		if !j.wanted && key.kind != jobSwitch && key.kind != jobResume {
			j.cancel()
		}
	}
}

func (a *Agent) sweepSteps(ctx context.Context, s *fsm.State) {
	for d := range s.DeploymentsIn(fsm.StatusRunning) {
		step := d.Step(d.Phase, a.cfg.Node)
		if step == nil || step.State != fsm.StepPending {
			continue
		}
		key := jobKey{"step", d.ID, d.Phase, step.Attempt}
		a.start(ctx, key, func(ctx context.Context) {
			a.limited(ctx, a.slots, func() { a.runStep(ctx, d, step.Attempt) })
		})
	}
}

func (a *Agent) sweepRepairs(ctx context.Context, s *fsm.State) {
	for r := range s.PendingRepairs(a.cfg.Node) {
		key := jobKey{kind: "repair", id: r.ID, attempt: r.Attempt}
		a.start(ctx, key, func(ctx context.Context) {
			if sleep(ctx, pauseBefore(r)) == nil {
				a.limited(ctx, a.upkeep, func() { a.runRepair(ctx, r) })
			}
		})
	}
}

// sweepActive lets the current links follow the routes: they switch with the log entry, current a moment later.
func (a *Agent) sweepActive(ctx context.Context, s *fsm.State) {
	for d := range s.DeploymentsSince(a.seen) {
		if d.Status == fsm.StatusActive && d.Serves(a.cfg.Node) && a.current[d.Project] != d.ID {
			project := d.Project
			if !a.start(ctx, jobKey{kind: jobSwitch, id: project}, func(ctx context.Context) { a.runSwitch(ctx, project) }) {
				return // one is under way: look again when it has ended
			}
			a.current[d.Project] = d.ID
		}
		a.seen = d.ModifyIndex
	}
}

// start runs fn unless a job of that key is there already, and reports whether it did.
func (a *Agent) start(ctx context.Context, key jobKey, fn func(context.Context)) bool {
	if j, ok := a.jobs[key]; ok {
		j.wanted = true
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	j := &job{cancel: cancel, ended: make(chan struct{}), wanted: true}
	a.jobs[key] = j
	go func() {
		defer a.wake()
		defer close(j.ended)
		defer cancel()
		fn(ctx)
	}()
	return true
}

// limited runs fn when there is a free slot, unless ctx ends before.
func (a *Agent) limited(ctx context.Context, slots chan struct{}, fn func()) {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		fn()
	case <-ctx.Done():
	}
}

func (a *Agent) wake() {
	select {
	case a.done <- struct{}{}:
	default:
	}
}

// propose commits a report, under one ID, until the state machine has answered or nobody wants it any more.
func (a *Agent) propose(ctx context.Context, b fsm.Body) error {
	cmd := fsm.NewCommand(b, fsm.NodeActor(a.cfg.Node))
	for {
		r, err := a.cfg.Proposer.Propose(ctx, cmd)
		if r.Err != nil {
			return r.Err // the state machine's answer, and final
		}
		if err == nil || ctx.Err() != nil || !errs.Transient(err) && errs.CodeOf(err) != errs.TooMany {
			return err
		}
		a.cfg.Logger.Debug("a report waits for a leader", "command", b.Kind(), "error", err)
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// stale reports whether an error only says that the work is no longer asked for.
func stale(err error) bool {
	return errs.CodeOf(err) == errs.StaleReport || errs.CodeOf(err) == errs.NotFound || errors.Is(err, context.Canceled)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait: %w", ctx.Err())
	}
}
