package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

// step is one attempt of this node's work in one phase, under way.
type step struct {
	a       *Agent
	d       *fsm.Deployment
	key     fsm.StepKey
	log     *stepLog
	percent atomic.Int32 // progress inside the phase
}

// runStep does one attempt of a step and reports how it went.
func (a *Agent) runStep(ctx context.Context, d *fsm.Deployment, attempt int) {
	st := &step{a: a, d: d, key: fsm.StepKey{Deployment: d.ID, Phase: d.Phase, Attempt: attempt, Node: a.cfg.Node}}
	logger := a.cfg.Logger.With("project", d.Project, "deployment", d.ID, "phase", d.Phase, "attempt", attempt)
	st.log = openStepLog(a.cfg.Logs, st.key, logger)
	defer st.log.Close()

	report, err := st.attempt(ctx)
	if ctx.Err() != nil || errors.Is(err, errNotAsked) {
		return // the node stops, or the step is no longer asked for: nothing to say
	}
	if err == nil {
		if err = st.report(ctx, report); err == nil || stale(err) || ctx.Err() != nil {
			return
		}
		// A report that is refused for what it says makes the step a failed one: without any it would go on for ever.
	}
	st.log.line("error", "failed: "+err.Error())
	if err := st.report(ctx, fsm.StepReport{Failure: st.failure(err)}); err != nil && !stale(err) && ctx.Err() == nil {
		logger.Error("a step's failure cannot be reported", "error", err)
	}
}

func (st *step) report(ctx context.Context, r fsm.StepReport) error {
	r.StepKey = st.key
	if err := fault.Point("agent.report.before"); err != nil {
		return err
	}
	if err := st.a.propose(ctx, r); err != nil {
		return err
	}
	return fault.Point("agent.report.after")
}

// asked reports whether the state still asks for this attempt.
func (st *step) asked() bool {
	d := st.a.cfg.Replica.State().Deployment(st.key.Deployment)
	if d == nil || d.Status != fsm.StatusRunning || d.Phase != st.key.Phase {
		return false
	}
	s := d.Step(st.key.Phase, st.key.Node)
	return s != nil && s.State == fsm.StepPending && s.Attempt == st.key.Attempt
}

var errNotAsked = errs.New(errs.StaleReport, "the step is no longer asked for")

// attempt does the work within the phase's deadline, showing by heartbeats that it lives. A panic is a failure with its
// stack.
func (st *step) attempt(ctx context.Context) (report fsm.StepReport, err error) {
	work := ctx
	if limit := st.a.cfg.Replica.State().Settings().Deadlines[st.d.Phase].Std(); limit > 0 {
		var cancel context.CancelFunc
		work, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		defer func() {
			if err != nil && work.Err() != nil && ctx.Err() == nil {
				err = errs.New(errs.Deadline, "%s took longer than %s: %w", st.d.Phase, limit, err).WithHint("raise the phase's deadline with: kontiki settings set")
			}
		}()
	}
	unlock, err := st.a.together(work, st.d.Project)
	if err != nil {
		return report, err
	}
	defer unlock()
	if !st.asked() {
		return report, errNotAsked // a removal may have had the project first: nothing must come back
	}
	defer st.heartbeat(work)()
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{value: p, stack: errs.New(errs.Internal, "panic").Stack()}
		}
	}()
	st.log.line("info", "started "+string(st.d.Phase))
	began := time.Now()
	report, err = st.ensure(work)
	if err == nil {
		st.log.line("info", fmt.Sprintf("done in %s", time.Since(began).Round(time.Millisecond)))
	}
	return report, err
}

type panicError struct {
	value any
	stack string
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// heartbeat shows at intervals that the step lives and how far it is; the function it returns ends that.
func (st *step) heartbeat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sleep(ctx, st.a.cfg.Heartbeat) == nil {
			p := fsm.StepProgress{StepKey: st.key, Percent: int(st.percent.Load())}
			if err := st.a.propose(ctx, p); err != nil && !stale(err) {
				st.log.logger.Warn("a heartbeat was refused", "error", err)
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// ensure brings this node to where the phase must leave it. A target's phases build on each other and each begins by
// making sure of those before, so a node that is assigned late, or lost something in between, catches up.
func (st *step) ensure(ctx context.Context) (fsm.StepReport, error) {
	switch st.d.Phase {
	case fsm.PhasePullingSource:
		return st.ensurePulled(ctx)
	case fsm.PhaseBuilding:
		return st.ensureBuilt(ctx)
	}
	inst, held, err := st.ensureReady(ctx)
	if err != nil {
		return fsm.StepReport{}, err
	}
	report := fsm.StepReport{Instance: &inst, Held: held}
	for _, next := range []struct {
		phase  fsm.Phase
		ensure func(context.Context, *fsm.Deployment) error
	}{
		{fsm.PhaseCreatingSymlinks, st.a.ensureLinked},
		{fsm.PhaseUpdatingRoutes, st.a.ensureRouted},
		{fsm.PhaseHealthCheck, st.a.ensureHealthy},
	} {
		if st.d.Phase.Order() < next.phase.Order() {
			break
		}
		if err := next.ensure(ctx, st.d); err != nil {
			return fsm.StepReport{}, err
		}
	}
	return report, nil
}

// ensurePulled makes the source present on the builder.
func (st *step) ensurePulled(ctx context.Context) (fsm.StepReport, error) {
	if err := fault.Point("agent.pulling_source.before"); err != nil {
		return fsm.StepReport{}, err
	}
	src := st.d.Source
	if err := st.a.cfg.Blobs.Ensure(ctx, src.Digest); err != nil {
		return fsm.StepReport{}, fmt.Errorf("get the uploaded archive: %w", err)
	}
	st.log.line("info", fmt.Sprintf("the archive %s of %d bytes is here", src.Digest, src.Size))
	held := []fsm.Held{{Digest: src.Digest, Size: src.Size, Nodes: []string{st.a.cfg.Node}}}
	return fsm.StepReport{Held: held}, fault.Point("agent.pulling_source.after")
}

// ensureBuilt reads the archive as safely as if nobody had before, writes the manifest and stores it on a majority.
// The archive itself is the content: with the manifest it gives the same release on every node.
func (st *step) ensureBuilt(ctx context.Context) (fsm.StepReport, error) {
	if err := fault.Point("agent.building.before"); err != nil {
		return fsm.StepReport{}, err
	}
	src := st.d.Source
	if err := st.a.cfg.Blobs.Ensure(ctx, src.Digest); err != nil {
		return fsm.StepReport{}, fmt.Errorf("get the uploaded archive: %w", err)
	}
	archive, err := st.a.cfg.Blobs.Open(src.Digest)
	if err != nil {
		return fsm.StepReport{}, fmt.Errorf("open the uploaded archive: %w", err)
	}
	defer archive.Close()
	m, err := st.a.cfg.Sites.Manifest(ctx, archive, src.Format)
	if err != nil {
		return fsm.StepReport{}, fmt.Errorf("read the uploaded archive: %w", err)
	}
	st.log.line("info", fmt.Sprintf("a static site of %d files, %d bytes", m.Files, m.Bytes))
	held, err := st.a.cfg.Blobs.Put(ctx, bytes.NewReader(m.Encoded))
	if err != nil {
		return fsm.StepReport{}, fmt.Errorf("store the manifest: %w", err)
	}
	art := &fsm.Artifact{Content: src.Digest, Format: src.Format, Manifest: held.Digest, Files: m.Files, Bytes: m.Bytes}
	report := fsm.StepReport{Artifact: art, Held: []fsm.Held{held}, Metadata: map[string]string{
		"files": fmt.Sprint(m.Files), "bytes": fmt.Sprint(m.Bytes), "kind": "static"}}
	return report, fault.Point("agent.building.after")
}

// ensureCopied makes the release complete on this node's disk and its server run.
func (a *Agent) ensureCopied(ctx context.Context, d *fsm.Deployment) (fsm.Instance, []fsm.Held, error) {
	inst := fsm.Instance{Node: a.cfg.Node}
	if d.Artifact == nil {
		return inst, nil, errs.New(errs.Internal, "deployment %s has no artifact in %s", d.ID, d.Phase)
	}
	if err := fault.Point("agent.copying_files.before"); err != nil {
		return inst, nil, err
	}
	if err := a.ensureRelease(ctx, d); err != nil {
		return inst, nil, err
	}
	endpoint, err := a.cfg.Engine.EnsureServer(ctx, d.Project, d.Spec.Health)
	if err != nil {
		return inst, nil, fmt.Errorf("start the server of project %s: %w", d.Project, err)
	}
	inst.Endpoint = endpoint
	me := []string{a.cfg.Node}
	held := []fsm.Held{{Digest: d.Artifact.Content, Nodes: me}, {Digest: d.Artifact.Manifest, Nodes: me}}
	return inst, held, fault.Point("agent.copying_files.after")
}

func (a *Agent) ensureRelease(ctx context.Context, d *fsm.Deployment) error {
	for _, digest := range []string{d.Artifact.Manifest, d.Artifact.Content} {
		if err := a.cfg.Blobs.Ensure(ctx, digest); err != nil {
			return fmt.Errorf("get the artifact: %w", err)
		}
	}
	manifest, err := a.cfg.Blobs.Open(d.Artifact.Manifest)
	if err != nil {
		return fmt.Errorf("open the manifest: %w", err)
	}
	defer manifest.Close()
	archive, err := a.cfg.Blobs.Open(d.Artifact.Content)
	if err != nil {
		return fmt.Errorf("open the artifact: %w", err)
	}
	defer archive.Close()
	if err := a.cfg.Sites.EnsureRelease(ctx, d, archive, manifest); err != nil {
		return fmt.Errorf("extract the release: %w", err)
	}
	return nil
}

// ensureLinked makes the project's webroot link.
func (a *Agent) ensureLinked(ctx context.Context, d *fsm.Deployment) error {
	if err := fault.Point("agent.creating_symlinks.before"); err != nil {
		return err
	}
	if err := a.cfg.Sites.EnsureWebroot(ctx, d.Project); err != nil {
		return fmt.Errorf("link the webroot of project %s: %w", d.Project, err)
	}
	return fault.Point("agent.creating_symlinks.after")
}

// ensureRouted makes sure that this node's ingress leads the release's own host to it. The route itself is a function of
// the committed state, in force since the phase was entered.
func (a *Agent) ensureRouted(ctx context.Context, d *fsm.Deployment) error {
	if err := fault.Point("agent.updating_routes.before"); err != nil {
		return err
	}
	if err := a.cfg.Prober.Routed(ctx, d); err != nil {
		return fmt.Errorf("route the candidate: %w", err)
	}
	return fault.Point("agent.updating_routes.after")
}

// ensureHealthy checks the release through the real serving path until it passes, at most as often as the spec says.
// It gives no start period: the server runs before, and a static release has nothing to start.
func (a *Agent) ensureHealthy(ctx context.Context, d *fsm.Deployment) error {
	if err := fault.Point("agent.health_check.before"); err != nil {
		return err
	}
	h := d.Spec.Health
	pause := min(h.Interval.Std(), time.Second)
	for try := 1; ; try++ {
		err := a.cfg.Prober.Probe(ctx, d)
		if err == nil {
			return fault.Point("agent.health_check.after")
		}
		if try >= h.Retries {
			return fmt.Errorf("health check %d of %d: %w", try, h.Retries, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// openStepLog opens a step's log; when that fails the step goes on without, and the node's log says so.
func openStepLog(logs Logs, key fsm.StepKey, logger *slog.Logger) *stepLog {
	w, err := logs.Create(key.Deployment, key.Phase, key.Attempt)
	if err != nil {
		logger.Warn("a step's log cannot be written", "error", err)
	}
	return &stepLog{w: w, logger: logger}
}
