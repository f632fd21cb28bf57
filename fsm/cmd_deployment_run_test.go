package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kontiki/errs"
)

func TestDeploymentStart(t *testing.T) {
	m := three(t)
	id := m.create(1, "blog")
	m.ok(DeploymentStart{ID: id, Builder: "n3", Targets: []string{"n2", "n1", "n2"}})
	d := m.deployment(id)
	if d.Status != StatusRunning || d.Phase != PhasePullingSource || d.PhaseProgress != 10 || d.StartedAt != m.lastTime() || d.Builder != "n3" || !slices.Equal(d.Targets, []string{"n1", "n2"}) {
		t.Errorf("deployment is %+v", d)
	}
	if got := steps(d); got != "pulling_source/n3/1/pending" {
		t.Errorf("steps are %s", got)
	}
}

func steps(d *Deployment) string {
	var out []string
	for _, s := range d.Steps {
		out = append(out, fmt.Sprintf("%s/%s/%d/%s", s.Phase, s.Node, s.Attempt, s.State))
	}
	return strings.Join(out, " ")
}

func TestDeploymentStartRefusals(t *testing.T) {
	m := three(t)
	running := m.start(1, "blog")
	queued := m.create(2, "blog")
	good := []string{"n1"}
	m.refuse(errs.NotFound, DeploymentStart{ID: nth(9), Builder: "n1", Targets: good})
	m.refuse(errs.StaleReport, DeploymentStart{ID: running, Builder: "n1", Targets: good})
	m.refuse(errs.Conflict, DeploymentStart{ID: queued, Builder: "n1", Targets: good})
	m.ok(DeploymentCancel{ID: running})
	m.refuse(errs.NotFound, DeploymentStart{ID: queued, Builder: "n9", Targets: good})
	m.refuse(errs.NotFound, DeploymentStart{ID: queued, Builder: "", Targets: good})
	m.refuse(errs.NotFound, DeploymentStart{ID: queued, Builder: "n1", Targets: []string{"n1", "n9"}})
	m.refuse(errs.BadCommand, DeploymentStart{ID: queued, Builder: "n1"})
	m.ok(DeploymentStart{ID: queued, Builder: "n1", Targets: good})
}

func TestBuilderIsReplaced(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	m.ok(DeploymentAssign{ID: id, Phase: PhasePullingSource, Builder: "n3", Targets: []string{"n1", "n2"}, Reason: "n1 is lost"})
	d := m.deployment(id)
	if got := steps(d); got != "pulling_source/n1/1/abandoned pulling_source/n3/2/pending" || d.Attempt != 2 || d.Builder != "n3" {
		t.Errorf("attempt %d, steps %s", d.Attempt, got)
	}
	if s := d.Steps[0]; s.Message != "n1 is lost" || s.FinishedAt != m.lastTime() {
		t.Errorf("the abandoned step is %+v", s)
	}
	m.refuse(errs.StaleReport, StepReport{StepKey: StepKey{id, PhasePullingSource, 1, "n1"}}) // it had not heard of it
	m.ok(m.report(id, "n3"))
	if d := m.deployment(id); d.Phase != PhaseBuilding || d.Attempt != 1 {
		t.Errorf("deployment is in %s, attempt %d", d.Phase, d.Attempt)
	}
	m.refuse(errs.StaleReport, DeploymentAssign{ID: id, Phase: PhasePullingSource, Builder: "n2", Targets: []string{"n1"}})
}

func TestBuilderComesBackUnderANewAttempt(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	for _, b := range []string{"n2", "n1"} {
		m.ok(DeploymentAssign{ID: id, Phase: PhasePullingSource, Builder: b, Targets: []string{"n1"}, Reason: "moved"})
	}
	if got := steps(m.deployment(id)); got != "pulling_source/n1/1/abandoned pulling_source/n2/2/abandoned pulling_source/n1/3/pending" {
		t.Errorf("steps are %s", got)
	}
	m.refuse(errs.StaleReport, StepReport{StepKey: StepKey{id, PhasePullingSource, 1, "n1"}})
	m.ok(m.report(id, "n1"))
}

func TestTargetsAreReplaced(t *testing.T) {
	m := three(t)
	m.join("n4")
	id := m.start(1, "blog")
	m.until(id, PhaseHealthCheck)
	m.ok(m.report(id, "n1"))
	m.ok(DeploymentAssign{ID: id, Phase: PhaseHealthCheck, Builder: "n1", Targets: []string{"n3", "n4"}, Reason: "n1 and n2 are lost"})
	d := m.deployment(id)
	want := "health_check/n1/1/abandoned health_check/n2/1/abandoned health_check/n3/2/pending health_check/n4/2/pending"
	if got := steps(d); !strings.HasSuffix(got, want) || len(d.Instances) != 0 || d.Attempt != 2 {
		t.Errorf("attempt %d, instances %v, steps %s", d.Attempt, d.Instances, got)
	}
	m.ok(m.report(id, "n3"))
	m.ok(m.report(id, "n4"))
	// They had no part in updating_routes, and yet traffic has to find them: nobody else serves.
	if d := m.deployment(id); d.Status != StatusActive || instances(d) != "n3= n4=" {
		t.Errorf("deployment is %s in %s with %v", d.Status, d.Phase, d.Instances)
	}
}

// When everybody who is left has reported, taking the last one out that has not moves the deployment on.
func TestAssignCompletesThePhase(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	m.until(id, PhaseHealthCheck)
	m.ok(m.report(id, "n1"))
	m.ok(DeploymentAssign{ID: id, Phase: PhaseHealthCheck, Builder: "n1", Targets: []string{"n1"}, Reason: "n2 is lost"})
	if d := m.deployment(id); d.Status != StatusActive || instances(d) != "n1=http://n1:80" {
		t.Errorf("deployment is %s in %s with %v", d.Status, d.Phase, d.Instances)
	}
}

func TestDeploymentAssignRefusals(t *testing.T) {
	m := three(t)
	id, targets := m.start(1, "blog"), []string{"n1"}
	m.refuse(errs.NotFound, DeploymentAssign{ID: nth(9), Phase: PhasePullingSource, Builder: "n1", Targets: targets})
	m.refuse(errs.NotFound, DeploymentAssign{ID: id, Phase: PhasePullingSource, Builder: "n9", Targets: targets})
	m.refuse(errs.BadCommand, DeploymentAssign{ID: id, Phase: PhasePullingSource, Builder: "n1"})
	m.until(id, PhaseActive)
	m.refuse(errs.StaleReport, DeploymentAssign{ID: id, Phase: PhaseActive, Builder: "n1", Targets: targets})
}

func TestDeploymentRetry(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	m.ok(StepReport{StepKey: StepKey{id, PhasePullingSource, 1, "n1"}, Failure: &Failure{Code: errs.DiskFull, Message: "no room", Transient: true}})
	d := m.deployment(id)
	if got := steps(d); got != "pulling_source/n1/1/failed" || d.Steps[0].Failure.Code != errs.DiskFull || d.Status != StatusRunning {
		t.Errorf("%s with steps %s", d.Status, got)
	}
	m.refuse(errs.StaleReport, DeploymentRetry{ID: id, Phase: PhaseBuilding, Node: "n1", Attempt: 1})
	m.refuse(errs.StaleReport, DeploymentRetry{ID: id, Phase: PhasePullingSource, Node: "n2", Attempt: 1})
	m.refuse(errs.StaleReport, DeploymentRetry{ID: id, Phase: PhasePullingSource, Node: "n1", Attempt: 2})
	m.refuse(errs.NotFound, DeploymentRetry{ID: nth(9), Phase: PhasePullingSource, Node: "n1", Attempt: 1})
	m.term = 7
	retry := DeploymentRetry{ID: id, Phase: PhasePullingSource, Node: "n1", Attempt: 1, Reason: "room was made"}
	m.ok(retry)
	m.refuse(errs.StaleReport, retry)
	d = m.deployment(id)
	if s := d.Steps[0]; s.State != StepPending || s.Attempt != 2 || s.Term != 7 || s.StartedAt != Time(1_000_000_000+(m.n-1)*1000) || s.FinishedAt != 0 || d.Attempt != 2 {
		t.Errorf("attempt %d, step %+v", d.Attempt, s)
	}
	m.refuse(errs.StaleReport, StepReport{StepKey: StepKey{id, PhasePullingSource, 1, "n1"}}) // of the first attempt
	m.ok(m.report(id, "n1"))
	m.refuse(errs.StaleReport, DeploymentRetry{ID: id, Phase: PhasePullingSource, Node: "n1", Attempt: 2})
}

func TestDeploymentFail(t *testing.T) {
	m := three(t)
	active := m.activate(1, "blog")
	id := m.start(2, "blog")
	m.until(id, PhaseUpdatingRoutes)
	m.ok(m.report(id, "n1"))
	m.refuse(errs.StaleReport, DeploymentFail{ID: id, Phase: PhaseCopyingFiles})
	m.refuse(errs.NotFound, DeploymentFail{ID: nth(9), Phase: PhaseUpdatingRoutes})
	m.ok(DeploymentFail{ID: id, Phase: PhaseUpdatingRoutes, Failure: Failure{Phase: PhaseQueued, Node: "n2", Code: errs.Unhealthy, Message: "it burns"}})
	d := m.deployment(id)
	if d.Status != StatusFailed || d.Phase != PhaseFailed || d.PhaseProgress != 0 || d.FinishedAt != m.lastTime() || len(d.Instances) != 0 {
		t.Errorf("deployment is %+v", d)
	}
	if f := d.Failure; f == nil || f.Phase != PhaseUpdatingRoutes || f.Code != errs.Unhealthy || f.Node != "n2" {
		t.Errorf("failure is %+v", f)
	}
	if s := d.Step(PhaseUpdatingRoutes, "n2"); s.State != StepAbandoned {
		t.Errorf("the step that was open is %+v", s)
	}
	if p := m.state().Project("blog"); p.Active != active || m.deployment(active).Status != StatusActive {
		t.Errorf("the project's active deployment is %s", p.Active)
	}
	for _, n := range []string{"n1", "n2"} {
		r := first(t, m.state().PendingRepairs(n))
		if r.Kind != RepairCleanup || r.Deployment != id || r.Project != "blog" || r.Reason != "the deployment failed" {
			t.Errorf("node %s is told %+v", n, r)
		}
	}
	if n := count(m.state().PendingRepairs("n3")); n != 0 {
		t.Errorf("n3 had no part in it and has %d orders", n)
	}
	m.refuse(errs.StaleReport, DeploymentFail{ID: id, Phase: PhaseFailed})
	m.refuse(errs.StaleReport, StepReport{StepKey: StepKey{id, PhaseUpdatingRoutes, 1, "n2"}})
	m.refuse(errs.Conflict, DeploymentCancel{ID: id})
}

func TestDeploymentCancel(t *testing.T) {
	m := three(t)
	queued := m.create(1, "blog")
	m.ok(DeploymentCancel{ID: queued})
	if d := m.deployment(queued); d.Status != StatusCancelled || d.Phase != PhaseFailed || d.Events[1].Message != "cancelled by alice" {
		t.Errorf("deployment is %+v", d)
	}
	if n := count(m.state().Repairs()); n != 0 {
		t.Errorf("nothing was made, and yet there are %d repairs", n)
	}
	id := m.start(2, "blog")
	m.ok(DeploymentAssign{ID: id, Phase: PhasePullingSource, Builder: "n3", Targets: []string{"n3"}, Reason: "n1 is lost"})
	m.ok(NodeRemove{ID: "n1"})
	m.ok(NodeLeft{ID: "n1"})
	m.ok(DeploymentCancel{ID: id})
	if got := ids(m.state().Repairs(), func(r *Repair) string { return r.Node }); got != "n3" {
		t.Errorf("%q are told to clean up: a removed node is not, everybody else who had a part is", got)
	}
	m.refuse(errs.Conflict, DeploymentCancel{ID: id})
	m.refuse(errs.NotFound, DeploymentCancel{ID: nth(9)})
}

// Who was a target for a while and is none at the end is told to clean up when the deployment becomes active: nobody
// would remember it later.
func TestLeftOutTargetsCleanUp(t *testing.T) {
	m := three(t)
	m.join("n4")
	id := m.start(1, "blog")
	m.until(id, PhaseCopyingFiles)
	m.ok(DeploymentAssign{ID: id, Phase: PhaseCopyingFiles, Builder: "n1", Targets: []string{"n3", "n4"}, Reason: "n1 and n2 are away"})
	m.ok(DeploymentAssign{ID: id, Phase: PhaseCopyingFiles, Builder: "n1", Targets: []string{"n3", "n2"}, Reason: "n2 is back"})
	m.until(id, PhaseHealthCheck)
	if n := count(m.state().Repairs()); n != 0 {
		t.Errorf("%d repairs while it runs", n)
	}
	m.until(id, PhaseActive)
	if got := ids(m.state().Repairs(), func(r *Repair) string { return string(r.Kind) + " " + r.Node }); got != "cleanup n1 cleanup n4" {
		t.Errorf("repairs are %s", got)
	}
}
