package reconcile

import "kontiki/fsm"

// judgeLeaving ends the removals of nodes that the cluster can do without.
func (p *planner) judgeLeaving() {
	for _, n := range p.nodes {
		if n.State == fsm.NodeLeaving && p.dispensable(n) {
			p.emit(fsm.NodeLeft{ID: n.ID})
		}
	}
}

// dispensable reports whether nothing is served and held by the leaving node alone. One that is out of contact serves
// nobody, and where no other node is ready there is nowhere to place anything: waiting would help nobody.
func (p *planner) dispensable(n *fsm.Node) bool {
	if silent, known := p.o.Silent[n.ID]; known && silent >= p.settings.NodeAway.Std() {
		return true
	}
	ready := 0
	for _, other := range p.nodes {
		if other.State == fsm.NodeReady {
			ready++
		}
	}
	if ready == 0 {
		return true
	}
	for d := range p.s.DeploymentsIn(fsm.StatusActive) {
		if d.Serves(n.ID) && !p.serves(d) {
			return false
		}
	}
	return !p.holdsAlone(n)
}

// serves reports whether a ready node serves the deployment.
func (p *planner) serves(d *fsm.Deployment) bool {
	for _, i := range d.Instances {
		if p.ready(i.Node) {
			return true
		}
	}
	return false
}

// holdsAlone reports whether the node has the only copy of a blob that is needed.
func (p *planner) holdsAlone(n *fsm.Node) bool {
	needed := p.needed()
	for b := range p.s.Blobs() {
		if !needed[b.Digest] {
			continue
		}
		holds, others := false, false
		for _, holder := range b.Nodes {
			holds = holds || holder == n.ID
			others = others || stays(p.node(holder))
		}
		if holds && !others {
			return true
		}
	}
	return false
}
