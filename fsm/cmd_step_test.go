package fsm

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"kontiki/errs"
)

func TestStepReportsBringADeploymentAllTheWay(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	for _, c := range []struct {
		node     string
		phase    Phase
		progress int
	}{
		{"n1", PhaseBuilding, 30}, {"n1", PhaseCopyingFiles, 50},
		{"n2", PhaseCopyingFiles, 50}, {"n1", PhaseCreatingSymlinks, 60},
		{"n1", PhaseCreatingSymlinks, 60}, {"n2", PhaseUpdatingRoutes, 75},
		{"n2", PhaseUpdatingRoutes, 75}, {"n1", PhaseHealthCheck, 90},
		{"n1", PhaseHealthCheck, 90}, {"n2", PhaseActive, 100},
	} {
		m.ok(m.report(id, c.node))
		if d := m.deployment(id); d.Phase != c.phase || d.PhaseProgress != c.progress || d.PhaseUpdatedAt != m.lastTime() {
			t.Fatalf("after the report of %s: %s at %d", c.node, d.Phase, d.PhaseProgress)
		}
	}
	d := m.deployment(id)
	if d.Status != StatusActive || d.FinishedAt != m.lastTime() || d.Artifact.Files != 3 || instances(d) != "n1=http://n1:80 n2=http://n2:80" {
		t.Errorf("deployment is %+v", d)
	}
	if p := m.state().Project("blog"); p.Active != id || m.state().ActiveOf(p) != d {
		t.Errorf("project is %+v", p)
	}
	if got := held(m.state().Blob(digest("content"))); got != "n1" {
		t.Errorf("the artifact is held by %s", got)
	}
}

// The switch is one log entry: at its index the old one ends, the new one is active and the project points to it.
func TestActivationSwitchesInOneEntry(t *testing.T) {
	m := three(t)
	old := m.activate(1, "blog")
	id := m.start(2, "blog")
	m.until(id, PhaseHealthCheck)
	m.ok(m.report(id, "n1"))
	before := m.state()
	m.ok(m.report(id, "n2"))
	if p := before.Project("blog"); p.Active != old || before.Deployment(old).Status != StatusActive || before.Deployment(id).Status != StatusRunning {
		t.Error("the view taken before the switch changed")
	}
	s := m.state()
	p, o, n := s.Project("blog"), s.Deployment(old), s.Deployment(id)
	if p.Active != id || o.Status != StatusSuperseded || o.Phase != PhaseActive || n.Status != StatusActive {
		t.Errorf("active %s, old %s in %s, new %s", p.Active, o.Status, o.Phase, n.Status)
	}
	if p.ModifyIndex != m.index || o.ModifyIndex != m.index || n.ModifyIndex != m.index {
		t.Errorf("changed at %d, %d and %d, not at %d", p.ModifyIndex, o.ModifyIndex, n.ModifyIndex, m.index)
	}
	if !o.Serves("n1") || !o.Routable() || !n.Routable() {
		t.Error("the old one does not serve any longer, though nobody has stopped it")
	}
}

func TestStepReportRefusals(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	m.until(id, PhaseCopyingFiles)
	good := m.report(id, "n1")
	for name, c := range map[string]struct {
		change func(*StepReport)
		code   errs.Code
	}{
		"unknown deployment":     {func(r *StepReport) { r.Deployment = nth(9) }, errs.NotFound},
		"phase gone by":          {func(r *StepReport) { r.Phase = PhaseBuilding }, errs.StaleReport},
		"phase to come":          {func(r *StepReport) { r.Phase = PhaseHealthCheck }, errs.StaleReport},
		"another attempt":        {func(r *StepReport) { r.Attempt = 2 }, errs.StaleReport},
		"another node":           {func(r *StepReport) { r.Node = "n3" }, errs.StaleReport},
		"bad metadata":           {func(r *StepReport) { r.Metadata = map[string]string{"a": "\x00"} }, errs.Invalid},
		"bad blob":               {func(r *StepReport) { r.Held = []Held{{Digest: "x"}} }, errs.BadCommand},
		"blob of negative size":  {func(r *StepReport) { r.Held = []Held{{Digest: digest("x"), Size: -1}} }, errs.BadCommand},
		"artifact of a target":   {func(r *StepReport) { r.Artifact = &Artifact{} }, errs.BadCommand},
		"another's instance":     {func(r *StepReport) { r.Instance = &Instance{Node: "n2"} }, errs.BadCommand},
		"failure with something": {func(r *StepReport) { r.Failure, r.Instance = &Failure{}, &Instance{Node: "n1"} }, errs.BadCommand},
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			c.change(&r)
			m.refuse(c.code, r)
		})
	}
	m.ok(good)
	m.refuse(errs.StaleReport, good) // once is enough
}

func TestBuilderReportRefusals(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	m.until(id, PhaseBuilding)
	r := m.report(id, "n1")
	r.Artifact = &Artifact{Content: digest("x"), Manifest: "x"}
	m.refuse(errs.BadCommand, r)
	r = m.report(id, "n1")
	r.Instance = &Instance{Node: "n1"}
	m.refuse(errs.BadCommand, r)
	m.ok(m.report(id, "n1"))
}

func TestFailedStepWaitsForTheLeader(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	m.until(id, PhaseCopyingFiles)
	r := m.report(id, "n1")
	r.Failure = &Failure{Code: errs.DiskFull, Message: "no room on n1"}
	m.ok(r)
	m.ok(m.report(id, "n2"))
	d := m.deployment(id)
	if d.Phase != PhaseCopyingFiles || d.Status != StatusRunning || d.Step(PhaseCopyingFiles, "n1").State != StepFailed {
		t.Errorf("deployment is %s in %s", d.Status, d.Phase)
	}
	if e := d.Events[len(d.Events)-1]; e.Node != "n1" || e.Message != "attempt 1 failed: no room on n1" {
		t.Errorf("last event is %+v", e)
	}
	m.ok(DeploymentRetry{ID: id, Phase: PhaseCopyingFiles, Node: "n1", Attempt: 1, Reason: "again"})
	m.ok(m.report(id, "n1"))
	if d := m.deployment(id); d.Phase != PhaseCreatingSymlinks || d.Attempt != 1 || d.Step(PhaseCopyingFiles, "n1").Failure != nil {
		t.Errorf("deployment is in %s, attempt %d", d.Phase, d.Attempt)
	}
}

func TestStepProgress(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	m.until(id, PhaseCopyingFiles)
	key := m.report(id, "n1").StepKey
	for _, c := range []struct{ percent, want int }{{0, 50}, {50, 55}, {20, 55}, {100, 60}, {0, 60}} {
		m.ok(StepProgress{StepKey: key, Percent: c.percent, Metadata: map[string]string{fmt.Sprint("p", c.percent): "seen"}})
		if d := m.deployment(id); d.PhaseProgress != c.want || d.PhaseUpdatedAt != m.lastTime() || d.Phase != PhaseCopyingFiles {
			t.Errorf("%d per cent of the phase give %d in %s", c.percent, d.PhaseProgress, d.Phase)
		}
	}
	want := map[string]string{"p0": "seen", "p50": "seen", "p20": "seen", "p100": "seen"}
	if d := m.deployment(id); !maps.Equal(d.PhaseMetadata, want) {
		t.Errorf("metadata is %v", d.PhaseMetadata)
	}
	m.refuse(errs.BadCommand, StepProgress{StepKey: key, Percent: 101})
	m.refuse(errs.BadCommand, StepProgress{StepKey: key, Percent: -1})
	m.refuse(errs.Invalid, StepProgress{StepKey: key, Metadata: map[string]string{"": "x"}})
	m.ok(m.report(id, "n1"))
	m.refuse(errs.StaleReport, StepProgress{StepKey: key, Percent: 10})
}

func TestPhaseMetadataIsMergedAndBounded(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	key := m.report(id, "n1").StepKey
	for i := range 64 {
		m.ok(StepProgress{StepKey: key, Metadata: map[string]string{fmt.Sprint("k", i): "v"}})
	}
	m.refuse(errs.Invalid, StepProgress{StepKey: key, Metadata: map[string]string{"more": "v"}})
	r := m.report(id, "n1")
	r.Metadata = map[string]string{"k0": "", "files": "3"}
	m.ok(r)
	if d := m.deployment(id); len(d.PhaseMetadata) != 64 || d.PhaseMetadata["files"] != "3" || d.Phase != PhaseBuilding {
		t.Errorf("in %s the metadata is %v", d.Phase, d.PhaseMetadata)
	}
}

func TestTimelineKeepsItsBeginningAndItsEnd(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	for i := range 2 * maxEvents {
		m.ok(DeploymentRetry{ID: id, Phase: PhasePullingSource, Node: "n1", Attempt: i + 1, Reason: fmt.Sprint("try ", i+2)})
	}
	e := m.deployment(id).Events
	if len(e) != maxEvents || e[0].Message != "queued" || e[2].Message != "try 2" || e[len(e)-1].Message != fmt.Sprint("try ", 2*maxEvents+1) {
		t.Errorf("%d events from %q to %q", len(e), e[0].Message, e[len(e)-1].Message)
	}
	for i := 1; i < len(e); i++ {
		if e[i].Index < e[i-1].Index {
			t.Fatalf("event %d of index %d follows %d", i, e[i].Index, e[i-1].Index)
		}
	}
}

func TestPhasesAndRoles(t *testing.T) {
	want := "queued 0 none, pulling_source 10 builder, building 30 builder, copying_files 50 target, creating_symlinks 60 target, " +
		"updating_routes 75 target, health_check 90 target, active 100 none, failed 0 none"
	var got []string
	for i, p := range Phases {
		got = append(got, fmt.Sprintf("%s %d %s", p, p.Progress(), SourceUpload.RoleIn(p)))
		if p.Order() != i {
			t.Errorf("%s has the order %d", p, p.Order())
		}
	}
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("phases are %s", s)
	}
	if Phase("lunch").Order() != -1 || Phase("lunch").Progress() != 0 {
		t.Error("lunch is a phase")
	}
	for s, final := range map[Status]bool{StatusQueued: false, StatusRunning: false, StatusActive: true, StatusSuperseded: true, StatusFailed: true, StatusCancelled: true} {
		if s.Terminal() != final {
			t.Errorf("%s: terminal is %v", s, !final)
		}
	}
}

func TestRoutable(t *testing.T) {
	one := []Instance{{Node: "n1"}}
	for _, c := range []struct {
		p    Progress
		i    []Instance
		want bool
	}{
		{Progress{Status: StatusQueued, Phase: PhaseQueued}, nil, false},
		{Progress{Status: StatusRunning, Phase: PhaseCreatingSymlinks}, one, false},
		{Progress{Status: StatusRunning, Phase: PhaseUpdatingRoutes}, nil, true},
		{Progress{Status: StatusActive, Phase: PhaseActive}, one, true},
		{Progress{Status: StatusSuperseded, Phase: PhaseActive}, one, true},
		{Progress{Status: StatusSuperseded, Phase: PhaseActive}, nil, false},
		{Progress{Status: StatusFailed, Phase: PhaseFailed}, one, false},
	} {
		d := Deployment{Progress: c.p, Placement: Placement{Instances: c.i}}
		if d.Routable() != c.want {
			t.Errorf("%s in %s with %v: routable is %v", c.p.Status, c.p.Phase, c.i, !c.want)
		}
	}
}

// A phase in which nobody works is recorded as skipped, not omitted.
func TestPhaseWithoutWorkIsSkipped(t *testing.T) {
	m := three(t)
	x := m.f.begin(99, 3)
	defer x.txn.Abort()
	d := &Deployment{ID: nth(1), Project: "blog", Placement: Placement{Builder: "n1"}}
	x.enter(d, PhaseQueued)
	if got := steps(d); got != "queued//1/skipped pulling_source/n1/1/pending" || d.Phase != PhasePullingSource {
		t.Errorf("in %s with steps %s", d.Phase, got)
	}
}
