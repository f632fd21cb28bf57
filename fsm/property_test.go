package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"kontiki/errs"
)

// world draws commands from a small set of names, so that they meet: most fit the state, some are stale, doubled or
// nonsense.
type world struct {
	*rapid.T
	f    *FSM // what the commands are drawn to fit
	sent []Command
	serial
	created int
}

var (
	someNodes    = rapid.SampledFrom([]string{"n1", "n2", "n3", "n4", "n5"})
	someProjects = rapid.SampledFrom([]string{"blog", "shop", "wiki"})
	somePhases   = rapid.SampledFrom(Phases)
	someDigests  = rapid.SampledFrom([]string{digest("a"), digest("b"), "nonsense"})
	someTargets  = rapid.SliceOfN(someNodes, 1, 2)
	someMetadata = rapid.SampledFrom([]map[string]string{nil, {"a": "1"}, {"a": "", "b": "2"}, {"": "x", "\x00": "y"}})
)

// busy gives a machine with two active deployments and one on its way.
func busy(t *testing.T) *machine {
	m := three(t)
	m.activate(1, "blog")
	m.activate(2, "shop")
	m.until(m.start(3, "blog"), PhaseHealthCheck)
	return m
}

// command gives the next command: a new one, one sent before, or one sent before with another request.
func (w *world) command() Command {
	kind := rapid.IntRange(0, 19).Draw(w.T, "how")
	if kind > 1 || len(w.sent) == 0 {
		c := w.stamp(w.body())
		if rapid.IntRange(0, 3).Draw(w.T, "keyed") == 0 {
			c.Request = []byte("request")
		}
		w.sent = append(w.sent, c)
		return c
	}
	c := rapid.SampledFrom(w.sent).Draw(w.T, "again")
	if kind == 1 {
		c.Request = []byte("another request")
	}
	return c
}

func (w *world) body() Body {
	switch rapid.IntRange(0, 12).Draw(w.T, "group") {
	case 0, 1:
		return w.creation()
	case 2, 3, 4, 5, 6, 7, 8:
		return w.progress()
	case 9:
		return w.judgement()
	case 10:
		return w.ofNodes()
	case 11:
		return w.ofProjects()
	}
	return w.repair()
}

func (w *world) creation() Body {
	w.created++
	c := creation(w.created, someProjects.Draw(w.T, "project"))
	if rapid.IntRange(0, 9).Draw(w.T, "known ID") == 0 {
		c.ID = w.anyID()
	}
	return c
}

func (w *world) anyID() string { return nth(rapid.IntRange(1, w.created+1).Draw(w.T, "deployment")) }

// progress does what a leader and the nodes do with the deployments there are.
func (w *world) progress() Body {
	s := w.f.State()
	if d := pick(w, "queued", s.DeploymentsIn(StatusQueued)); d != nil && rapid.Bool().Draw(w.T, "start") {
		return DeploymentStart{ID: d.ID, Builder: someNodes.Draw(w.T, "builder"), Targets: someTargets.Draw(w.T, "targets")}
	}
	d := pick(w, "running", s.DeploymentsIn(StatusRunning))
	if d == nil {
		return DeploymentStart{ID: w.anyID(), Builder: "n1", Targets: []string{"n1"}}
	}
	var open []Step
	for _, x := range d.Steps {
		if x.Phase == d.Phase && (x.State == StepPending || x.State == StepFailed) {
			open = append(open, x)
		}
	}
	x := rapid.SampledFrom(open).Draw(w.T, "step")
	key := StepKey{Deployment: d.ID, Phase: x.Phase, Node: x.Node, Attempt: x.Attempt}
	switch how := rapid.IntRange(0, 19).Draw(w.T, "report"); {
	case how == 0:
		return StepReport{StepKey: key, Failure: &Failure{Code: errs.Unhealthy, Message: "no"}}
	case how == 1:
		return StepProgress{StepKey: key, Percent: rapid.IntRange(-1, 101).Draw(w.T, "percent"), Metadata: someMetadata.Draw(w.T, "metadata")}
	case how == 2 || x.State == StepFailed:
		return DeploymentRetry{ID: d.ID, Phase: x.Phase, Node: x.Node, Attempt: x.Attempt, Reason: "again"}
	case x.Phase == PhaseUpdatingRoutes:
		return StepReport{StepKey: key, Instance: &Instance{Node: x.Node}}
	}
	return StepReport{StepKey: key, Metadata: someMetadata.Draw(w.T, "metadata")}
}

// judgement may hit any deployment in any phase, and so is mostly stale.
func (w *world) judgement() Body {
	id, phase := w.anyID(), somePhases.Draw(w.T, "phase")
	if d := w.f.State().Deployment(id); d != nil && rapid.Bool().Draw(w.T, "fresh") {
		phase = d.Phase
	}
	switch rapid.IntRange(0, 4).Draw(w.T, "judgement") {
	case 0:
		return DeploymentFail{ID: id, Phase: phase, Failure: Failure{Code: errs.Stuck, Message: "stuck"}}
	case 1:
		return DeploymentCancel{ID: id}
	case 2:
		return StepReport{StepKey: StepKey{Deployment: id, Phase: phase, Node: someNodes.Draw(w.T, "node"), Attempt: 1}}
	}
	return DeploymentAssign{ID: id, Phase: phase, Builder: someNodes.Draw(w.T, "builder"), Targets: someTargets.Draw(w.T, "targets"), Reason: "moved"}
}

func (w *world) ofNodes() Body {
	n := someNodes.Draw(w.T, "node")
	switch rapid.IntRange(0, 8).Draw(w.T, "of nodes") {
	case 8:
		return NodeLeft{ID: n}
	case 0:
		return NodeRemove{ID: n}
	case 1, 2:
		return JoinTokenCreate{ID: secret(n), ExpiresAt: 2_000_000_000}
	case 3, 4, 5:
		return NodeJoin{TokenID: secret(n), Node: node(n)}
	case 6:
		return NodeStatus{ID: n, State: rapid.SampledFrom([]NodeState{NodeReady, NodeLost, "x"}).Draw(w.T, "state")}
	}
	return NodeUpdate{ID: n, Incarnation: rapid.SampledFrom([]string{"data of " + n, "other"}).Draw(w.T, "incarnation")}
}

func (w *world) ofProjects() Body {
	p := someProjects.Draw(w.T, "project")
	switch rapid.IntRange(0, 5).Draw(w.T, "of projects") {
	case 0:
		return ProjectCreate{Name: p, Domains: []string{p + ".org"}, Metadata: someMetadata.Draw(w.T, "metadata")}
	case 1:
		return ProjectDelete{Name: p}
	case 2:
		s := DefaultSettings()
		s.Queue = rapid.SampledFrom([]string{"latest", "all", "x"}).Draw(w.T, "queue")
		put := SettingsPut{Settings: s}
		if c := w.f.State().Cluster(); c != nil {
			put.From = c.ModifyIndex - rapid.Uint64Range(0, 1).Draw(w.T, "too old")
		}
		return put
	case 3:
		return Checkpoint{}
	}
	return ProjectUpdate{Name: p, Domains: &[]string{someProjects.Draw(w.T, "domain") + ".org"}, Metadata: someMetadata.Draw(w.T, "metadata")}
}

func (w *world) repair() Body {
	n := someNodes.Draw(w.T, "node")
	if r := pick(w, "repair", w.f.State().PendingRepairs(n)); r != nil && rapid.Bool().Draw(w.T, "report it") {
		return RepairReport{ID: r.ID, Node: n, Attempt: r.Attempt, Failed: rapid.Bool().Draw(w.T, "failed"), Digests: []string{someDigests.Draw(w.T, "digest")}}
	}
	if rapid.Bool().Draw(w.T, "blob") {
		return BlobHeld{Digest: someDigests.Draw(w.T, "digest"), Node: n, Gone: rapid.Bool().Draw(w.T, "gone"), Size: 5}
	}
	kind := rapid.SampledFrom([]RepairKind{RepairPlace, RepairCleanup, RepairForget, RepairFetchBlob, RepairDropBlob}).Draw(w.T, "repair")
	return RepairOrder{Repair: kind, Node: n, Project: someProjects.Draw(w.T, "project"), Deployment: w.anyID(), Digest: someDigests.Draw(w.T, "digest")}
}

func pick[T any](w *world, label string, seq func(yield func(*T) bool)) *T {
	some := collect(seq)
	if len(some) == 0 {
		return nil
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(w.T, label)]
}

// Any commands in any order and grouping keep the invariants; a second machine, restored from a snapshot midway, and a
// third that gets the same commands one by one come to the same objects.
func TestAnyCommandsKeepTheInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := busy(t), busy(t)
		w := &world{T: rt, f: a.f, serial: serial{1000}, created: 3}
		entries := rapid.SampledFrom([]int{5, 30, 80, 150}).Draw(rt, "entries")
		restoreAt := rapid.IntRange(0, entries).Draw(rt, "restore at")
		for i := range entries {
			var group []Command
			for range rapid.SampledFrom([]int{1, 1, 1, 2, 5}).Draw(rt, "commands") {
				group = append(group, w.command())
			}
			if i == restoreAt {
				restored := New()
				if err := restored.Restore(bytes.NewReader(snapshotBytes(t, a.f))); err != nil {
					rt.Fatal(err)
				}
				b.f = restored
			}
			before := a.state()
			ra, rb := a.send(group...), b.send(group...)
			if !bytes.Equal(EncodeResults(ra), EncodeResults(rb)) {
				rt.Fatalf("two machines answer %+v and %+v", ra, rb)
			}
			for _, r := range ra {
				if errs.CodeOf(errOf(r)) == errs.Internal {
					rt.Fatalf("a defect: %v", r.Err)
				}
			}
			checkInvariants(rt, before, a.state())
		}
		if a.hash() != b.hash() {
			rt.Fatal("two machines have two hashes")
		}
	})
}

// Grouping changes what index a command gets and nothing else: the same results in the same order.
func TestGroupedAndUngroupedEntriesAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		one, many := busy(t), busy(t)
		w := &world{T: rt, f: one.f, serial: serial{1000}, created: 3}
		var group []Command
		var codes []errs.Code
		for range rapid.IntRange(1, 40).Draw(rt, "commands") {
			c := w.command()
			if c.Kind == "repair.report" || c.Kind == "settings.put" {
				continue // they name a repair and the settings by the index of their last change
			}
			group = append(group, c)
			codes = append(codes, errs.CodeOf(errOf(one.send(c)[0])))
		}
		for i, r := range many.send(group...) {
			if got := errs.CodeOf(errOf(r)); got != codes[i] {
				rt.Fatalf("command %d, %s, gives %q alone and %q in a group", i, group[i].Kind, codes[i], got)
			}
		}
		if a, b := outline(one.state()), outline(many.state()); a != b {
			rt.Fatalf("one by one:\n%s\nin a group:\n%s", a, b)
		}
	})
}

// outline says what there is, without indexes.
func outline(s *State) string {
	var b bytes.Buffer
	for p := range s.Projects("") {
		fmt.Fprintln(&b, p.Name, p.Domains, p.Active, p.Metadata, p.NextNumber)
	}
	for d := range s.Deployments("") {
		fmt.Fprintln(&b, d.ID, d.Status, d.Phase, d.Builder, d.Targets, d.Instances, steps(d))
	}
	for n := range s.Nodes() {
		fmt.Fprintln(&b, n.ID, n.State, count(s.PendingRepairs(n.ID)))
	}
	for x := range s.Blobs() {
		fmt.Fprintln(&b, x.Digest, held(x))
	}
	return b.String()
}

func checkInvariants(t *rapid.T, before, after *State) {
	active := map[string]string{}
	for d := range after.Deployments("") {
		checkDeployment(t, before.Deployment(d.ID), d)
		if d.Status == StatusActive {
			if other := active[d.Project]; other != "" {
				t.Fatalf("project %s has two active deployments, %s and %s", d.Project, other, d.ID)
			}
			active[d.Project] = d.ID
		}
		if after.Project(d.Project) == nil {
			t.Fatalf("deployment %s has no project", d.ID)
		}
	}
	running := map[string]bool{}
	for d := range after.DeploymentsIn(StatusRunning) {
		if running[d.Project] {
			t.Fatalf("two deployments of %s are running", d.Project)
		}
		running[d.Project] = true
	}
	for p := range after.Projects("") {
		if p.Active != active[p.Name] {
			t.Fatalf("project %s says %q is active, it is %q", p.Name, p.Active, active[p.Name])
		}
		old := before.Project(p.Name)
		if p.Active == "" && old != nil && old.Active != "" && old.CreateIndex == p.CreateIndex {
			t.Fatalf("project %s has lost its active deployment %s", p.Name, old.Active)
		}
	}
	for n := range before.Nodes() {
		if after.Node(n.ID) == nil && !after.Removed(n.ID) {
			t.Fatalf("node %s is gone, and not as removed", n.ID)
		}
	}
	for n := range after.Nodes() {
		if after.Removed(n.ID) {
			t.Fatalf("removed node %s is a member", n.ID)
		}
	}
}

func checkDeployment(t *rapid.T, old, d *Deployment) {
	if d.Status.Terminal() != (d.Phase == PhaseActive || d.Phase == PhaseFailed) || (d.Status == StatusQueued) != (d.Phase == PhaseQueued) {
		t.Fatalf("deployment %s is %s in %s", d.ID, d.Status, d.Phase)
	}
	if d.Status == StatusRunning {
		open := false
		for _, s := range d.Steps {
			open = open || s.Phase == d.Phase && (s.State == StepPending || s.State == StepFailed)
		}
		if !open {
			t.Fatalf("nobody has to do anything for deployment %s in %s: %s", d.ID, d.Phase, steps(d))
		}
	}
	if old == nil || old.CreateIndex != d.CreateIndex {
		return
	}
	if d.Phase.Order() < old.Phase.Order() {
		t.Fatalf("deployment %s went back from %s to %s", d.ID, old.Phase, d.Phase)
	}
	final := old.Status.Terminal() && d.Status != old.Status
	if final && (old.Status != StatusActive || d.Status != StatusSuperseded) {
		t.Fatalf("deployment %s was %s and became %s", d.ID, old.Status, d.Status)
	}
	if len(d.Steps) < len(old.Steps) || d.Phase == old.Phase && d.Attempt < old.Attempt || d.ModifyIndex < old.ModifyIndex {
		t.Fatalf("the history of deployment %s was rewritten: %+v, %+v", d.ID, old, d)
	}
}
