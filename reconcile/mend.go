package reconcile

import (
	"strings"

	"kontiki/fsm"
)

// judgeInventories orders nodes to place again what they say is not whole. What a node does not mention is not known to
// be wrong, and what it says of a deployment that was replaced meanwhile is of no interest.
func (p *planner) judgeInventories() {
	for _, n := range p.nodes {
		for _, h := range p.o.Inventories[n.ID] {
			d := p.s.ActiveOf(p.s.Project(h.Project))
			if h.wrong() == "" || d == nil || d.ID != h.Deployment || d.Artifact == nil || !d.Serves(n.ID) {
				continue
			}
			if p.open(n.ID, fsm.RepairPlace, d.ID, "") || p.open(n.ID, fsm.RepairCleanup, d.ID, "") {
				continue
			}
			p.emit(fsm.RepairOrder{Repair: fsm.RepairPlace, Node: n.ID, Project: d.Project, Deployment: d.ID, Reason: h.wrong()})
		}
	}
}

// wrong says in words what is not as it should be, "" when all is.
func (h Holding) wrong() string {
	var words []string
	for _, part := range []struct {
		whole bool
		words string
	}{
		{h.Release, "the release is missing"},
		{h.Server, "the project's server does not run or is ill"},
		{h.Current, "the current link does not name it"},
		{h.Webroot, "the webroot link is wrong"},
	} {
		if !part.whole {
			words = append(words, part.words)
		}
	}
	return strings.Join(words, ", ")
}
