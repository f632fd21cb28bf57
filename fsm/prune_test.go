package fsm

import (
	"bytes"
	"fmt"
	"testing"
)

// The newest deployments of a project are kept, and of the older ones those that serve somewhere or are at work.
func TestOldDeploymentsAreForgotten(t *testing.T) {
	m := three(t)
	kept, active := m.activate(1, "blog"), m.activate(2, "blog")
	other := m.create(3, "shop")
	m.ok(DeploymentCancel{ID: other})
	var cancelled []string
	for n := range 2*keepDeployments + 50 {
		id := m.create(10+n, "blog")
		m.ok(DeploymentCancel{ID: id})
		cancelled = append(cancelled, id)
	}
	s := m.state()
	if got := count(s.DeploymentsOf("blog", 0)); got != keepDeployments+2 {
		t.Errorf("%d deployments are kept", got)
	}
	for _, id := range append(cancelled[len(cancelled)-keepDeployments+1:], kept, active, other) {
		if s.Deployment(id) == nil {
			t.Errorf("%s is forgotten", id)
		}
	}
	if s.Deployment(cancelled[0]) != nil || s.ActiveOf(s.Project("blog")).ID != active {
		t.Error("the oldest is kept, or the active one is not")
	}
	for _, node := range []string{"n1", "n2"} { // the old release is removed: then nothing keeps it
		m.ok(RepairOrder{Repair: RepairCleanup, Node: node, Project: "blog", Deployment: kept, Reason: "test"})
		for r := range m.state().PendingRepairs(node) {
			if r.Deployment == kept {
				m.ok(RepairReport{ID: r.ID, Node: node, Attempt: 1})
				break
			}
		}
	}
	if m.state().Deployment(kept) != nil || m.state().Deployment(active) == nil {
		t.Error("what serves nowhere any more is kept, or the active one is not")
	}
}

// stones applies an entry that drops n objects.
func (f *FSM) stones(index uint64, n int) {
	f.mu.Lock()
	t := f.begin(index, 1)
	for i := range n {
		b := &Blob{Digest: fmt.Sprint(index, "-", i)}
		for range 2 { // dropped twice, it leaves one
			put(t, tableBlobs, b, &b.Indexes)
			drop(t, tableBlobs, b.Digest, b)
		}
	}
	t.commit()
	f.mu.Unlock()
	f.publish(index)
}

// The newest tombstones are kept, whether the state was lived through or restored from a snapshot on the way.
func TestOldTombstonesAreForgotten(t *testing.T) {
	f, g := New(), New()
	f.stones(1, keepTombstones-10)
	f.stones(2, 20)
	var b bytes.Buffer
	if _, err := f.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if err := g.Restore(&b); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*FSM{f, g} {
		m.stones(3, 5)
		if got := count(all[Tombstone](m.State(), tableTombstones)); got != keepTombstones || m.tombstones != got {
			t.Errorf("%d tombstones are kept, %d counted", got, m.tombstones)
		}
	}
	if f.snapshot(3).Hash() != g.snapshot(3).Hash() {
		t.Error("the restored state forgets others")
	}
	newest := 0
	for stone := range all[Tombstone](f.State(), tableTombstones) {
		if stone.ModifyIndex > 1 {
			newest++
		}
	}
	if newest != 25 {
		t.Errorf("%d of the newest 25 are left", newest)
	}
}
