package reconcile

import (
	"fmt"
	"testing"

	"kontiki/fsm"
)

// Projects spread evenly: of 300 with one replica each, no node of three gets less than 70 or more than 130.
func TestProjectsSpread(t *testing.T) {
	w := newWorld(t, fsm.DefaultSettings(), "n1", "n2", "n3")
	count := map[string]int{}
	for i := range 300 {
		count[Targets(w.f.State(), fmt.Sprintf("site-%d", i), 1)[0]]++
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		if count[n] < 70 || count[n] > 130 {
			t.Errorf("300 projects are spread as %v", count)
		}
	}
}

// When a node comes, a project moves to it or stays where it is: nothing moves between the others.
func TestProjectsStayWhereTheyAre(t *testing.T) {
	three := newWorld(t, fsm.DefaultSettings(), "n1", "n2", "n3").f.State()
	four := newWorld(t, fsm.DefaultSettings(), "n1", "n2", "n3", "n4").f.State()
	moved := 0
	for i := range 300 {
		p := fmt.Sprintf("site-%d", i)
		before, after := Targets(three, p, 1)[0], Targets(four, p, 1)[0]
		if before != after && after != "n4" {
			t.Errorf("%s moves from %s to %s", p, before, after)
		}
		if before != after {
			moved++
		}
	}
	if moved == 0 {
		t.Error("n4 gets nothing")
	}
}
