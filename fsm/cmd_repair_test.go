package fsm

import (
	"fmt"
	"strings"
	"testing"

	"kontiki/errs"
)

func TestRepairOrderRefusals(t *testing.T) {
	m := three(t)
	good := RepairOrder{Repair: RepairFetchBlob, Node: "n1", Digest: digest("x"), Reason: "too few"}
	m.ok(good)
	m.refuse(errs.Exists, good)
	for _, b := range []RepairOrder{
		{Repair: "dance", Node: "n1"},
		{Repair: RepairFetchBlob, Node: "n1", Digest: "x"},
		{Repair: RepairDropBlob, Node: "n1"},
		{Repair: RepairForget, Node: "n1", Project: "../.."},
		{Repair: RepairPlace, Node: "n1", Project: "blog", Deployment: "../.."},
		{Repair: RepairCleanup, Node: "n1", Project: "", Deployment: nth(1)},
	} {
		m.refuse(errs.BadCommand, b)
	}
	good.Node = "n9"
	m.refuse(errs.NotFound, good)
	good.Node = "n2"
	m.ok(good)
	if r := first(t, m.state().PendingRepairs("n2")); r.ID != fmt.Sprintf("r%d-1", m.index) || r.Attempt != 1 || r.Reason != "too few" || r.OrderedAt != m.lastTime() {
		t.Errorf("repair is %+v", r)
	}
}

// order orders a repair and gives its ID.
func (m *machine) order(b RepairOrder) string {
	m.t.Helper()
	m.ok(b)
	return fmt.Sprintf("r%d-1", m.index)
}

func TestRepairReport(t *testing.T) {
	m := three(t)
	id := m.order(RepairOrder{Repair: RepairFetchBlob, Node: "n1", Digest: digest("x")})
	m.refuse(errs.NotFound, RepairReport{ID: "r0-0", Node: "n1", Attempt: 1})
	m.refuse(errs.StaleReport, RepairReport{ID: id, Node: "n2", Attempt: 1})
	m.refuse(errs.StaleReport, RepairReport{ID: id, Node: "n1", Attempt: 2})
	m.refuse(errs.BadCommand, RepairReport{ID: id, Node: "n1", Attempt: 1, Digests: []string{"x"}})
	m.ok(RepairReport{ID: id, Node: "n1", Attempt: 1, Failed: true, Message: "no room"})
	if r := m.state().Repair(id); r.State != StepPending || r.Attempt != 2 || r.Message != "no room" || r.FinishedAt != 0 {
		t.Errorf("after a failure: %+v", r)
	}
	m.refuse(errs.StaleReport, RepairReport{ID: id, Node: "n1", Attempt: 1})
	m.ok(RepairReport{ID: id, Node: "n1", Attempt: 2, Digests: []string{digest("x")}})
	if r := m.state().Repair(id); r.State != StepDone || r.FinishedAt != m.lastTime() {
		t.Errorf("after success: %+v", r)
	}
	if got := held(m.state().Blob(digest("x"))); got != "n1" {
		t.Errorf("the blob is held by %s", got)
	}
	m.refuse(errs.StaleReport, RepairReport{ID: id, Node: "n1", Attempt: 2})
}

func TestRepairsChangeWhatANodeIsSaidToHave(t *testing.T) {
	m := three(t)
	d := m.activate(1, "blog")
	place := m.order(RepairOrder{Repair: RepairPlace, Node: "n3", Project: "blog", Deployment: d})
	m.ok(RepairReport{ID: place, Node: "n3", Attempt: 1, Instance: Instance{Node: "n2", Endpoint: "here"}})
	want := "n1=http://n1:80 n2=http://n2:80 n3=here" // the reporter speaks for itself only
	if got := instances(m.deployment(d)); got != want {
		t.Errorf("instances are %s, want %s", got, want)
	}
	clean := m.order(RepairOrder{Repair: RepairCleanup, Node: "n2", Project: "blog", Deployment: d})
	m.ok(RepairReport{ID: clean, Node: "n2", Attempt: 1})
	if got := instances(m.deployment(d)); got != "n1=http://n1:80 n3=here" {
		t.Errorf("after cleaning n2: %s", got)
	}
	drop := m.order(RepairOrder{Repair: RepairDropBlob, Node: "n2", Digest: digest(d)})
	m.ok(RepairReport{ID: drop, Node: "n2", Attempt: 1})
	if got := held(m.state().Blob(digest(d))); got != "n1" {
		t.Errorf("the source is held by %s", got)
	}
}

func instances(d *Deployment) string {
	var out []string
	for _, i := range d.Instances {
		out = append(out, i.Node+"="+i.Endpoint)
	}
	return strings.Join(out, " ")
}

// What is repaired may be gone by the time the report comes.
func TestRepairReportAfterItsObjectIsGone(t *testing.T) {
	m := three(t)
	for _, kind := range []RepairKind{RepairPlace, RepairCleanup} {
		id := m.order(RepairOrder{Repair: kind, Node: "n3", Project: "blog", Deployment: nth(9)})
		m.ok(RepairReport{ID: id, Node: "n3", Attempt: 1})
	}
	id := m.order(RepairOrder{Repair: RepairDropBlob, Node: "n3", Digest: digest("never seen")})
	m.ok(RepairReport{ID: id, Node: "n3", Attempt: 1})
}

// Finished repairs are kept for people, the newest thousand; open ones always.
func TestRepairsArePruned(t *testing.T) {
	m := three(t)
	open := m.order(RepairOrder{Repair: RepairFetchBlob, Node: "n3", Digest: digest("open")})
	oldest, newest := "", ""
	for i := range 2*keepRepairs + 1 {
		id := m.order(RepairOrder{Repair: RepairDropBlob, Node: "n1", Digest: digest(fmt.Sprint(i))})
		m.ok(RepairReport{ID: id, Node: "n1", Attempt: 1})
		if newest = id; i == 0 {
			oldest = id
		}
	}
	s := m.state()
	if s.Repair(open) == nil || s.Repair(newest) == nil || s.Repair(oldest) != nil {
		t.Errorf("open %v, newest %v, oldest %v", s.Repair(open), s.Repair(newest), s.Repair(oldest))
	}
	if n := count(s.Repairs()); n < keepRepairs || n > 2*keepRepairs {
		t.Errorf("%d repairs are kept", n)
	}
}

// A node that was ordered to place a release which was replaced meanwhile reports that it is done, with no instance.
func TestPlacedNothing(t *testing.T) {
	m := three(t)
	d := m.activate(1, "blog")
	id := m.order(RepairOrder{Repair: RepairPlace, Node: "n3", Project: "blog", Deployment: d})
	m.activate(2, "blog")
	m.ok(RepairReport{ID: id, Node: "n3", Attempt: 1})
	if got := instances(m.deployment(d)); got != "n1=http://n1:80 n2=http://n2:80" {
		t.Errorf("instances are %s", got)
	}
}
