package fsm

import (
	"slices"
	"strings"
)

// maxEvents bounds a deployment's timeline: the first events and the newest are kept.
const maxEvents = 200

// event adds a line to the deployment's timeline.
func (t *tx) event(d *Deployment, node, message string) {
	e := Event{Index: t.index, Term: t.term, At: t.now, Phase: d.Phase, Progress: d.PhaseProgress, Attempt: d.Attempt,
		Node: node, Message: message}
	if len(d.Events) >= maxEvents {
		d.Events = slices.Delete(slices.Clone(d.Events), maxEvents/2, maxEvents/2+1)
	}
	d.Events = append(slices.Clip(d.Events), e)
}

// enter brings the deployment into a phase: it orders the phase's steps, and goes on at once through phases without
// work.
func (t *tx) enter(d *Deployment, phase Phase) {
	d.Phase, d.PhaseProgress, d.PhaseUpdatedAt, d.Attempt = phase, phase.Progress(), t.now, 1
	if phase == PhaseActive {
		t.activate(d)
		return
	}
	t.event(d, "", "entered "+string(phase))
	for _, node := range t.participants(d, phase) {
		d.Steps = append(d.Steps, Step{Phase: phase, Node: node, Attempt: 1, State: StepPending, StartedAt: t.now, Term: t.term})
	}
	if d.Source.Type.RoleIn(phase) == RoleNone {
		d.Steps = append(d.Steps, Step{Phase: phase, Attempt: 1, State: StepSkipped, StartedAt: t.now, FinishedAt: t.now, Term: t.term})
		t.advance(d)
	}
}

// participants are the nodes that work in a phase.
func (t *tx) participants(d *Deployment, phase Phase) []string {
	switch d.Source.Type.RoleIn(phase) {
	case RoleBuilder:
		return []string{d.Builder}
	case RoleTarget:
		return d.Targets
	}
	return nil
}

// advance moves the deployment on when every participant of its phase has reported done.
func (t *tx) advance(d *Deployment) {
	for i := range d.Steps {
		if s := &d.Steps[i]; s.Phase == d.Phase && (s.State == StepPending || s.State == StepFailed) {
			return
		}
	}
	t.enter(d, Phases[d.Phase.Order()+1])
}

// activate is the switch: the project's route leads to this deployment from this log entry on, on every node.
func (t *tx) activate(d *Deployment) {
	p := *t.state().Project(d.Project)
	if old := t.state().Deployment(p.Active); old != nil && old.ID != d.ID {
		c := old.clone()
		t.finish(c, StatusSuperseded, "replaced by deployment "+d.ID)
		put(t, tableDeployments, c, &c.Indexes)
	}
	p.Active, p.UpdatedAt = d.ID, t.now
	put(t, tableProjects, &p, &p.Indexes)
	d.Status, d.FinishedAt = StatusActive, t.now
	t.event(d, "", "active on "+strings.Join(d.Targets, ", "))
	t.clearLeftOut(d)
}

// clearLeftOut orders the nodes that were targets for a while, and are none at the end, to remove what they have: nobody
// would remember it later. A node that is to serve the release after all is ordered to place it when that is done.
func (t *tx) clearLeftOut(d *Deployment) {
	var nodes []string
	for i := range d.Steps {
		s := &d.Steps[i]
		if s.State == StepAbandoned && d.Source.Type.RoleIn(s.Phase) == RoleTarget && !slices.Contains(d.Targets, s.Node) {
			nodes = with(nodes, s.Node)
		}
	}
	for _, n := range nodes {
		if t.state().Node(n) != nil {
			t.order(&Repair{Kind: RepairCleanup, Node: n, Project: d.Project, Deployment: d.ID, Reason: "it was left out of the deployment"})
		}
	}
}

// finish gives the deployment a final status. One that worked keeps its phase, active; the others end in failed.
func (t *tx) finish(d *Deployment, status Status, message string) {
	d.Status, d.FinishedAt, d.PhaseUpdatedAt = status, t.now, t.now
	if status != StatusSuperseded {
		d.Phase, d.PhaseProgress = PhaseFailed, PhaseFailed.Progress()
	}
	t.event(d, "", message)
}

// abort ends a deployment that has not worked and orders every node that had a part in it to remove what it made.
func (t *tx) abort(d *Deployment, status Status, message string) {
	var nodes []string
	for i := range d.Steps {
		s := &d.Steps[i]
		if s.Node != "" {
			nodes = with(nodes, s.Node)
		}
		if s.State == StepPending {
			s.State, s.FinishedAt = StepAbandoned, t.now
		}
	}
	d.Instances = nil
	t.finish(d, status, message)
	for _, n := range nodes {
		if t.state().Node(n) != nil {
			t.order(&Repair{Kind: RepairCleanup, Node: n, Project: d.Project, Deployment: d.ID, Reason: "the deployment " + string(status)})
		}
	}
}

func withInstance(set []Instance, i Instance) []Instance {
	out := append(withoutInstance(set, i.Node), i)
	slices.SortFunc(out, func(a, b Instance) int { return strings.Compare(a.Node, b.Node) })
	return out
}

func withoutInstance(set []Instance, node string) []Instance {
	return slices.DeleteFunc(slices.Clone(set), func(i Instance) bool { return i.Node == node })
}
