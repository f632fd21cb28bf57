package fsm

import "testing"

// Commands of one entry see what those before them made, changed and dropped.
func TestCommandsOfOneEntrySeeEachOther(t *testing.T) {
	m := three(t)
	r := m.send(m.stamp(ProjectCreate{Name: "blog"}), m.stamp(ProjectUpdate{Name: "blog", Metadata: map[string]string{"a": "1"}}),
		m.stamp(ProjectUpdate{Name: "blog", Metadata: map[string]string{"b": "2"}}), m.stamp(creation(1, "blog")),
		m.stamp(DeploymentStart{ID: nth(1), Builder: "n1", Targets: []string{"n1"}}), m.stamp(DeploymentCancel{ID: nth(1)}))
	for i, x := range r {
		if x.Err != nil {
			t.Errorf("command %d: %v", i, x.Err)
		}
	}
	if p := m.state().Project("blog"); len(p.Metadata) != 2 || p.NextNumber != 2 {
		t.Errorf("project is %+v", p)
	}
	r = m.send(m.stamp(ProjectDelete{Name: "blog"}), m.stamp(ProjectUpdate{Name: "blog"}), m.stamp(ProjectCreate{Name: "blog"}), m.stamp(DeploymentCancel{ID: nth(1)}))
	if r[0].Err != nil || r[1].Err == nil || r[2].Err != nil || r[3].Err == nil {
		t.Errorf("results are %+v", r)
	}
	if p := m.state().Project("blog"); len(p.Metadata) != 0 || p.NextNumber != 1 || p.CreateIndex != m.index {
		t.Errorf("project is %+v", p)
	}
}

// Every table but the tombstones' is looked up by ID, and has to find there what the entry put.
func TestEveryTableIsInTheOverlay(t *testing.T) {
	x := New().begin(1, 1)
	defer x.txn.Abort()
	for _, table := range tables {
		object := table.fresh()
		if _, ok := idOf(object); ok == (table.name == tableTombstones) {
			t.Errorf("%s: %v", table.name, ok)
			continue
		}
		if table.name == tableTombstones {
			continue
		}
		id, _ := idOf(object)
		x.view.fresh.put(table.name, object, false)
		if got, ok := x.view.fresh.object(table.name, id); !ok || got != object {
			t.Errorf("%s: %v, %v", table.name, got, ok)
		}
		x.view.fresh.put(table.name, object, true)
		if got, ok := x.view.fresh.object(table.name, id); !ok || got != nil {
			t.Errorf("%s, dropped: %v, %v", table.name, got, ok)
		}
	}
}
