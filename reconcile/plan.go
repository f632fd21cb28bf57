package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// Plan gives the commands that bring the cluster nearer to what it should be. Equal input gives equal output, and when
// the commands have been applied the same observation gives none of them again.
func Plan(s *fsm.State, o Observation) []fsm.Body {
	p := &planner{s: s, o: o, settings: s.Settings(), load: map[string]int{}}
	for n := range s.Nodes() {
		p.nodes = append(p.nodes, n)
	}
	p.judgeNodes()
	p.judgeRunning()
	p.startQueued()
	p.judgePlacement()
	p.judgeInventories()
	p.judgeLeaving()
	if o.Scope == nil {
		r := p.removals()
		p.judgeRetention(r)
		p.judgeBlobs(r)
		r.flush()
	}
	return p.out
}

// Targets gives the nodes a new deployment of the project would run on now, sorted.
func Targets(s *fsm.State, project string, replicas fsm.Replicas) []string {
	p := &planner{s: s}
	for n := range s.Nodes() {
		p.nodes = append(p.nodes, n)
	}
	return p.pickTargets(&fsm.Deployment{Project: project, Spec: fsm.Spec{Replicas: replicas}})
}

type planner struct {
	s        *fsm.State
	o        Observation
	settings fsm.Settings
	nodes    []*fsm.Node
	load     map[string]int // deployments being built, by builder, with those being started
	out      []fsm.Body
}

func (p *planner) emit(b fsm.Body) { p.out = append(p.out, b) }

// stateOf judges a node by its silence.
func (p *planner) stateOf(n *fsm.Node) (fsm.NodeState, string) {
	silent, known := p.o.Silent[n.ID]
	switch {
	case n.State == fsm.NodeLeaving:
		return n.State, n.Reason // that it is away lets it go, and does not bring it back
	case !known && n.State == fsm.NodeReady:
		return fsm.NodeAway, "it is not in contact yet"
	case !known:
		return n.State, n.Reason
	case silent >= p.settings.NodeLost.Std():
		return fsm.NodeLost, fmt.Sprintf("no contact for %s", p.settings.NodeLost.Std())
	case silent >= p.settings.NodeAway.Std():
		if n.State == fsm.NodeLost {
			return fsm.NodeLost, n.Reason // a new leader counts anew; lost stays lost until there is contact
		}
		return fsm.NodeAway, fmt.Sprintf("no contact for %s", p.settings.NodeAway.Std())
	case silent > 0:
		return n.State, n.Reason
	}
	return fsm.NodeReady, "in contact"
}

// judgeNodes commits changes of contact; what follows in this plan goes by the new state already.
func (p *planner) judgeNodes() {
	for i, n := range p.nodes {
		state, reason := p.stateOf(n)
		if state == n.State {
			continue
		}
		p.emit(fsm.NodeStatus{ID: n.ID, State: state, Reason: reason})
		c := *n
		c.State = state
		p.nodes[i] = &c
	}
}

func (p *planner) node(id string) *fsm.Node {
	for _, n := range p.nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

func (p *planner) ready(id string) bool {
	n := p.node(id)
	return n != nil && n.State == fsm.NodeReady
}

// judgeRunning looks at every running deployment: who works on it, what failed, what is stuck.
func (p *planner) judgeRunning() {
	for d := range p.s.DeploymentsIn(fsm.StatusRunning) {
		if d.Source.Type.RoleIn(d.Phase) == fsm.RoleBuilder {
			p.load[d.Builder]++ // once it has built, a deployment takes no builder's room
		}
		if !p.reassign(d) {
			p.judgeSteps(d)
		}
	}
}

// reassign replaces participants of the phase at hand that are gone and reports whether it did. A builder hands over at
// once. Targets are left out while others remain (they get the release when they are back), replaced when none does.
func (p *planner) reassign(d *fsm.Deployment) bool {
	builder, targets := d.Builder, d.Targets
	switch d.Source.Type.RoleIn(d.Phase) {
	case fsm.RoleBuilder:
		if p.ready(builder) {
			return false
		}
		builder = p.pickBuilder(d)
		targets = p.only(targets, func(n string) bool { return p.node(n) != nil })
	case fsm.RoleTarget:
		targets = p.only(targets, p.ready)
		if len(targets) == len(d.Targets) {
			return false
		}
	}
	if len(targets) == 0 {
		targets = p.pickTargets(d)
	}
	if builder == "" || len(targets) == 0 {
		return false // nobody is there to take over: wait for somebody
	}
	if p.node(builder) == nil {
		builder = targets[0] // the builder has done its part and was removed since; the name must be a member's
	}
	p.load[builder]++
	p.emit(fsm.DeploymentAssign{ID: d.ID, Phase: d.Phase, Builder: builder, Targets: targets, Reason: p.gone(d)})
	return true
}

func (p *planner) only(nodes []string, keep func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return !keep(n) })
}

// gone says in words which participants are not there.
func (p *planner) gone(d *fsm.Deployment) string {
	var names []string
	for _, id := range append([]string{d.Builder}, d.Targets...) {
		if !p.ready(id) && !slices.Contains(names, id) {
			names = append(names, id)
		}
	}
	slices.Sort(names)
	return fmt.Sprintf("not in contact: %v", names)
}

// judgeSteps retries or gives up the steps of the phase at hand that failed, took too long or went silent.
func (p *planner) judgeSteps(d *fsm.Deployment) {
	for i := range d.Steps {
		step := &d.Steps[i]
		if step.Phase != d.Phase {
			continue
		}
		var failure *fsm.Failure
		switch step.State {
		case fsm.StepFailed:
			failure = step.Failure
			if failure.Transient && step.Attempt < p.settings.MaxAttempts {
				p.retryAfter(d, step)
				continue
			}
		case fsm.StepPending:
			if failure = p.overdue(d, step); failure == nil {
				continue
			}
			if step.Attempt < p.settings.MaxAttempts && p.ready(step.Node) && failure.Code == errs.Stuck {
				p.emit(fsm.DeploymentRetry{ID: d.ID, Phase: d.Phase, Node: step.Node, Attempt: step.Attempt, Reason: failure.Message})
				continue
			}
		default:
			continue
		}
		p.emit(fsm.DeploymentFail{ID: d.ID, Phase: d.Phase, Failure: *failure})
		return
	}
}

// retryAfter orders another attempt once the back-off is over; it doubles with each attempt, up to a minute.
func (p *planner) retryAfter(d *fsm.Deployment, step *fsm.Step) {
	wait := backOff(p.settings.RetryBackoff.Std(), step.Attempt)
	if p.o.InStep[StepID{d.ID, step.Phase, step.Node, step.Attempt, step.State}] < wait || !p.ready(step.Node) {
		return
	}
	p.emit(fsm.DeploymentRetry{ID: d.ID, Phase: d.Phase, Node: step.Node, Attempt: step.Attempt,
		Reason: fmt.Sprintf("attempt %d of %d follows: %s", step.Attempt+1, p.settings.MaxAttempts, step.Failure.Message)})
}

// backOff is how long to wait after the attempt, from 1; no number of attempts overflows it.
func backOff(first time.Duration, attempt int) time.Duration {
	return min(min(first, time.Minute)<<min(attempt-1, 16), time.Minute)
}

// overdue says why a pending step must not go on as it is, nil when it may.
func (p *planner) overdue(d *fsm.Deployment, step *fsm.Step) *fsm.Failure {
	idle, stuck := p.o.Idle[d.ID], p.settings.Stuck.Std()
	inStep := p.o.InStep[StepID{d.ID, step.Phase, step.Node, step.Attempt, step.State}]
	if deadline := p.settings.Deadlines[d.Phase].Std(); deadline > 0 && inStep >= deadline+stuck {
		return &fsm.Failure{Phase: d.Phase, Node: step.Node, Code: errs.Deadline,
			Message: fmt.Sprintf("%s on node %s took longer than %s", d.Phase, step.Node, deadline),
			Hint:    "raise the phase's deadline with: kontiki settings set"}
	}
	if idle < stuck || inStep < stuck {
		return nil
	}
	return &fsm.Failure{Phase: d.Phase, Node: step.Node, Code: errs.Stuck,
		Message: fmt.Sprintf("stuck: no progress or heartbeat from node %s for %s", step.Node, stuck),
		Hint:    "look at the node's log"}
}

// startQueued starts what waits: oldest first, one per project, no more on a builder than it may build. Projects with
// something running wait without holding up others.
func (p *planner) startQueued() {
	busy := map[string]bool{}
	for d := range p.s.DeploymentsIn(fsm.StatusRunning) {
		busy[d.Project] = true
	}
	for d := range p.s.DeploymentsIn(fsm.StatusQueued) {
		if busy[d.Project] {
			continue
		}
		busy[d.Project] = true
		builder, targets := p.pickBuilder(d), p.pickTargets(d)
		if builder == "" || len(targets) == 0 {
			continue
		}
		p.load[builder]++
		p.emit(fsm.DeploymentStart{ID: d.ID, Builder: builder, Targets: targets})
	}
}

// pickBuilder chooses a ready node with room for another build: one that holds the source, then the least loaded, then
// by name. "" when there is none.
func (p *planner) pickBuilder(d *fsm.Deployment) string {
	var held []string
	if b := p.s.Blob(d.Source.Digest); b != nil {
		held = b.Nodes
	}
	var best *fsm.Node
	for _, n := range p.nodes {
		if n.State != fsm.NodeReady || p.load[n.ID] >= p.settings.Builds {
			continue
		}
		if best == nil || p.better(n, best, held) {
			best = n
		}
	}
	if best == nil {
		return ""
	}
	return best.ID
}

func (p *planner) better(a, b *fsm.Node, held []string) bool {
	ha, hb := slices.Contains(held, a.ID), slices.Contains(held, b.ID)
	if ha != hb {
		return ha
	}
	return p.load[a.ID] < p.load[b.ID]
}

// pickTargets chooses the ready nodes a deployment is to run on: those that serve the project now stay, then others in
// an order that spreads projects over the nodes.
func (p *planner) pickTargets(d *fsm.Deployment) []string {
	active := p.s.ActiveOf(p.s.Project(d.Project))
	return p.spread(d, func(n string) bool { return active != nil && active.Serves(n) })
}

// spread gives as many ready nodes as the deployment wants replicas, sorted; preferred ones first.
func (p *planner) spread(d *fsm.Deployment, preferred func(string) bool) []string {
	var ready []string
	for _, n := range p.nodes {
		if n.State == fsm.NodeReady {
			ready = append(ready, n.ID)
		}
	}
	want := len(ready)
	if d.Spec.Replicas != fsm.ReplicasAll {
		want = min(want, int(d.Spec.Replicas))
	}
	slices.SortStableFunc(ready, func(a, b string) int {
		if pa, pb := preferred(a), preferred(b); pa != pb {
			if pa {
				return -1
			}
			return 1
		}
		return cmp.Compare(rank(d.Project, a), rank(d.Project, b))
	})
	ready = ready[:want]
	slices.Sort(ready)
	return ready
}
