package fsm

import (
	"slices"

	"kontiki/errs"
)

// DeploymentStart takes a deployment out of the queue: the leader has chosen who does it.
type DeploymentStart struct {
	ID      string   `cbor:"id"`
	Builder string   `cbor:"builder"`
	Targets []string `cbor:"targets"`
}

// Kind implements Body.
func (DeploymentStart) Kind() Kind { return "deployment.start" }

// DeploymentAssign changes who works on a running deployment. It is bound to the phase the leader judged.
type DeploymentAssign struct {
	ID      string   `cbor:"id"`
	Phase   Phase    `cbor:"phase"`
	Builder string   `cbor:"builder"`
	Targets []string `cbor:"targets"`
	Reason  string   `cbor:"reason"`
}

// Kind implements Body.
func (DeploymentAssign) Kind() Kind { return "deployment.assign" }

// DeploymentRetry orders another attempt of a step that failed or is stuck; it is bound to the attempt judged.
type DeploymentRetry struct {
	ID      string `cbor:"id"`
	Phase   Phase  `cbor:"phase"`
	Node    string `cbor:"node"`
	Attempt int    `cbor:"attempt"`
	Reason  string `cbor:"reason"`
}

// Kind implements Body.
func (DeploymentRetry) Kind() Kind { return "deployment.retry" }

// DeploymentFail ends a deployment that cannot work; it is bound to the phase judged.
type DeploymentFail struct {
	ID      string  `cbor:"id"`
	Phase   Phase   `cbor:"phase"`
	Failure Failure `cbor:"failure"`
}

// Kind implements Body.
func (DeploymentFail) Kind() Kind { return "deployment.fail" }

// DeploymentCancel ends a deployment because a user says so.
type DeploymentCancel struct {
	ID string `cbor:"id"`
}

// Kind implements Body.
func (DeploymentCancel) Kind() Kind { return "deployment.cancel" }

func init() {
	register(false, applyDeploymentStart, func(b DeploymentStart) string { return b.ID })
	register(true, applyDeploymentAssign, func(b DeploymentAssign) string { return b.ID })
	register(false, applyDeploymentRetry, func(b DeploymentRetry) string { return b.ID })
	register(false, applyDeploymentFail, func(b DeploymentFail) string { return b.ID })
	register(true, applyDeploymentCancel, func(b DeploymentCancel) string { return b.ID })
}

// running gives a copy of a running deployment that is in the phase judged.
func (t *tx) running(id string, phase Phase) (*Deployment, error) {
	d := t.state().Deployment(id)
	if d == nil {
		return nil, notFound("deployment", id)
	}
	if d.Status != StatusRunning || d.Phase != phase {
		return nil, errs.New(errs.StaleReport, "deployment %s is %s in %s, no longer running in %s", id, d.Status, d.Phase, phase)
	}
	return d.clone(), nil
}

// crew checks who is to work and gives the targets sorted.
func (t *tx) crew(builder string, targets []string) ([]string, error) {
	s := t.state()
	var sorted []string
	for _, n := range targets {
		sorted = with(sorted, n)
	}
	if len(sorted) == 0 {
		return nil, errs.New(errs.BadCommand, "a deployment needs a target")
	}
	for _, n := range append([]string{builder}, sorted...) {
		if s.Node(n) == nil {
			return nil, notFound("node", n)
		}
	}
	return sorted, nil
}

func applyDeploymentStart(t *tx, _ Command, b DeploymentStart) (any, error) {
	s := t.state()
	d := s.Deployment(b.ID)
	if d == nil {
		return nil, notFound("deployment", b.ID)
	}
	if d.Status != StatusQueued {
		return nil, errs.New(errs.StaleReport, "deployment %s is %s, no longer queued", b.ID, d.Status)
	}
	for r := range s.DeploymentsIn(StatusRunning) {
		if r.Project == d.Project {
			return nil, errs.New(errs.Conflict, "deployment %s of project %q is running", r.ID, d.Project)
		}
	}
	targets, err := t.crew(b.Builder, b.Targets)
	if err != nil {
		return nil, err
	}
	c := d.clone()
	c.Status, c.StartedAt, c.Builder, c.Targets = StatusRunning, t.now, b.Builder, targets
	t.enter(c, PhasePullingSource)
	put(t, tableDeployments, c, &c.Indexes)
	return nil, nil
}

func applyDeploymentAssign(t *tx, _ Command, b DeploymentAssign) (any, error) {
	d, err := t.running(b.ID, b.Phase)
	if err != nil {
		return nil, err
	}
	targets, err := t.crew(b.Builder, b.Targets)
	if err != nil {
		return nil, err
	}
	d.Builder, d.Targets = b.Builder, targets
	d.Instances = slices.DeleteFunc(d.Instances, func(i Instance) bool { return !slices.Contains(targets, i.Node) })
	now := t.participants(d, d.Phase)
	for i := range d.Steps {
		s := &d.Steps[i]
		if s.Phase == d.Phase && s.State != StepAbandoned && !slices.Contains(now, s.Node) {
			s.State, s.FinishedAt, s.Message = StepAbandoned, t.now, b.Reason
		}
	}
	attempt := 1
	for _, s := range d.Steps {
		if s.Phase == d.Phase {
			attempt = max(attempt, s.Attempt+1)
		}
	}
	for _, node := range now {
		last := d.Step(d.Phase, node)
		if last != nil && last.State != StepAbandoned {
			continue
		}
		d.Attempt = attempt
		d.Steps = append(d.Steps, Step{Phase: d.Phase, Node: node, Attempt: attempt, State: StepPending, StartedAt: t.now, Term: t.term})
	}
	d.PhaseUpdatedAt = t.now
	t.event(d, "", "reassigned: "+b.Reason)
	t.advance(d)
	put(t, tableDeployments, d, &d.Indexes)
	return nil, nil
}

func applyDeploymentRetry(t *tx, _ Command, b DeploymentRetry) (any, error) {
	d, err := t.running(b.ID, b.Phase)
	if err != nil {
		return nil, err
	}
	s := d.Step(b.Phase, b.Node)
	if s == nil || s.Attempt != b.Attempt || s.State != StepFailed && s.State != StepPending {
		return nil, errs.New(errs.StaleReport, "attempt %d of %s on node %q is over", b.Attempt, b.Phase, b.Node)
	}
	s.Attempt++
	s.State, s.StartedAt, s.FinishedAt, s.Term = StepPending, t.now, 0, t.term
	d.Attempt, d.PhaseUpdatedAt = max(d.Attempt, s.Attempt), t.now
	t.event(d, b.Node, b.Reason)
	put(t, tableDeployments, d, &d.Indexes)
	return nil, nil
}

func applyDeploymentFail(t *tx, _ Command, b DeploymentFail) (any, error) {
	d, err := t.running(b.ID, b.Phase)
	if err != nil {
		return nil, err
	}
	f := b.Failure
	f.Phase = b.Phase
	d.Failure = &f
	t.abort(d, StatusFailed, "failed in "+string(b.Phase)+": "+f.Message)
	put(t, tableDeployments, d, &d.Indexes)
	return nil, nil
}

func applyDeploymentCancel(t *tx, cmd Command, b DeploymentCancel) (any, error) {
	d := t.state().Deployment(b.ID)
	if d == nil {
		return nil, notFound("deployment", b.ID)
	}
	if d.Status.Terminal() {
		return nil, errs.New(errs.Conflict, "deployment %s is %s", b.ID, d.Status).WithHint("only a queued or running deployment can be cancelled")
	}
	c := d.clone()
	t.abort(c, StatusCancelled, "cancelled by "+cmd.Actor)
	put(t, tableDeployments, c, &c.Indexes)
	return nil, nil
}
