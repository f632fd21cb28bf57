package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

// Replica is this node's view of the committed state.
type Replica interface {
	State() *fsm.State
	Changed() <-chan struct{}
}

// Proposer commits commands.
type Proposer interface {
	Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error)
}

// Config is what a Loop needs.
type Config struct {
	Node     string // this node's ID
	Term     uint64 // in which it leads: what it decides takes effect in this term only
	Replica  Replica
	Proposer Proposer
	// Silence gives for how long each member has been without contact, 0 for those in contact.
	Silence func() map[string]time.Duration
	// Inventory asks a node what it has, with every full pass. An error means that nothing is known; nil asks nobody.
	Inventory func(ctx context.Context, node string) ([]Holding, error)
	Logger    *slog.Logger
	// Tick is how often time alone is looked at (default 200 ms), Full how often everything is (default 1 min).
	Tick, Full time.Duration
}

// Loop is the leader's loop. It is run by one goroutine.
type Loop struct {
	cfg   Config
	watch Watch
	seen  uint64 // deployments changed up to here have had their placement judged
	nodes string // the nodes and their states at the last full pass
	full  time.Time

	survey      survey
	inventories map[string][]Holding // for the next pass
}

// NewLoop makes a loop; a fresh one is made for every term, so that nothing observed under another leader counts.
func NewLoop(cfg Config) *Loop {
	if cfg.Tick == 0 {
		cfg.Tick = 200 * time.Millisecond
	}
	if cfg.Full == 0 {
		cfg.Full = time.Minute
	}
	return &Loop{cfg: cfg, survey: newSurvey(&cfg)}
}

// Run judges until ctx ends: after every change of the state and, for what only time changes, every tick. When
// something was not committed it waits for the tick: a refusal is a log entry too, and would lead to the next one at once.
func (l *Loop) Run(ctx context.Context) {
	tick := time.NewTicker(l.cfg.Tick)
	defer tick.Stop()
	defer l.survey.wg.Wait()
	for ctx.Err() == nil {
		changed, answers := l.cfg.Replica.Changed(), l.survey.answers
		if !l.Pass(ctx) {
			changed, answers = nil, nil
		}
		select {
		case <-changed:
		case <-tick.C:
		case l.inventories = <-answers:
			l.survey.ended(ctx, l.cfg.Replica.State())
		case <-ctx.Done():
		}
	}
}

// Pass judges once and waits until what it proposed is committed or refused; it reports whether all was committed.
func (l *Loop) Pass(ctx context.Context) bool {
	s := l.cfg.Replica.State()
	now := time.Now()
	o := l.watch.Observe(s, now)
	o.Silent = l.cfg.Silence()
	if o.Scope = l.scope(s, now); o.Scope == nil {
		l.survey.begin(ctx, s)
	}
	o.Inventories, l.inventories = l.inventories, nil
	return l.commit(ctx, Plan(s, o))
}

// scope limits the pass to projects whose deployments changed, unless nodes changed or a full pass is due.
func (l *Loop) scope(s *fsm.State, now time.Time) map[string]bool {
	var nodes string
	for n := range s.Nodes() {
		nodes += n.ID + "=" + string(n.State) + "\n"
	}
	scope := map[string]bool{}
	for d := range s.DeploymentsSince(l.seen) {
		l.seen = d.ModifyIndex
		scope[d.Project] = true
	}
	if nodes != l.nodes || now.Sub(l.full) >= l.cfg.Full {
		l.nodes, l.full = nodes, now
		return nil
	}
	return scope
}

// commit proposes the commands together, so that they share log entries.
func (l *Loop) commit(ctx context.Context, bodies []fsm.Body) bool {
	if len(bodies) == 0 {
		return true
	}
	if fault.Point("reconcile.commit.before") != nil {
		return false
	}
	var refused atomic.Bool
	var wg sync.WaitGroup
	for _, b := range bodies {
		wg.Go(func() {
			if !l.propose(ctx, b) {
				refused.Store(true)
			}
		})
	}
	wg.Wait()
	_ = fault.Point("reconcile.commit.after") // the commands are committed: there is nothing left to fail
	return !refused.Load()
}

func (l *Loop) propose(ctx context.Context, b fsm.Body) bool {
	cmd := fsm.NewCommand(b, fsm.NodeActor(l.cfg.Node))
	cmd.Term = l.cfg.Term
	r, err := l.cfg.Proposer.Propose(ctx, cmd)
	if err == nil && r.Err != nil {
		err = r.Err
	}
	switch {
	case ctx.Err() != nil:
	case err != nil && errs.CodeOf(err) != errs.StaleReport && errs.CodeOf(err) != errs.Exists:
		l.cfg.Logger.Warn("a decision was not committed", "command", b.Kind(), "error", err)
	case err == nil:
		l.cfg.Logger.Debug("decided", "command", b.Kind(), "index", r.Index)
	}
	return err == nil
}
