package cluster

import (
	"slices"
	"testing"
)

func TestProposeThroughEveryNode(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	for id, n := range g.nodes {
		r := g.propose(n, "from-"+id)
		if n.machine.Applied() < r.Index || !n.machine.has("from-"+id) {
			t.Errorf("%s answered before it had applied its own write", id)
		}
		if again := g.propose(n, "from-"+id); !again.Replayed || again.Index != r.Index {
			t.Errorf("%s: a second time %+v, first %+v", id, again, r)
		}
	}
	want := g.leader().machine.ids()
	for id, n := range g.nodes {
		g.until("all apply the same", func() bool { return slices.Equal(n.machine.ids(), want) })
		if len(want) != 3 {
			t.Errorf("%s: %v", id, want)
		}
	}
}
