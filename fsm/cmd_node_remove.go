package fsm

import "kontiki/errs"

// NodeRemove takes a node out of the cluster for good, in two steps: the node gets no new work and goes on serving until
// the leader has placed elsewhere what only it serves, and commits NodeLeft. A node that is away or lost goes at once. A
// second NodeRemove changes nothing.
type NodeRemove struct {
	ID string `cbor:"id"`
}

// Kind implements Body.
func (NodeRemove) Kind() Kind { return "node.remove" }

// NodeLeft ends a removal: the leader has found that the cluster can do without a node that is leaving.
type NodeLeft struct {
	ID string `cbor:"id"`
}

// Kind implements Body.
func (NodeLeft) Kind() Kind { return "node.left" }

func init() {
	register(true, applyNodeRemove, func(b NodeRemove) string { return b.ID })
	register(true, applyNodeLeft, func(b NodeLeft) string { return b.ID })
}

func applyNodeRemove(t *tx, _ Command, b NodeRemove) (any, error) {
	s := t.state()
	n := s.Node(b.ID)
	if n == nil {
		return nil, notFound("node", b.ID)
	}
	if n.State == NodeLeaving {
		return nil, nil
	}
	staying := 0
	for other := range s.Nodes() {
		if other.State != NodeLeaving {
			staying++
		}
	}
	if staying == 1 {
		return nil, errs.New(errs.QuorumLoss, "%q is the last node", b.ID)
	}
	if n.State == NodeAway || n.State == NodeLost {
		t.left(n)
		return nil, nil
	}
	c := *n
	c.State, c.Reason, c.StateAt = NodeLeaving, "it is being removed", t.now
	put(t, tableNodes, &c, &c.Indexes)
	return nil, nil
}

func applyNodeLeft(t *tx, _ Command, b NodeLeft) (any, error) {
	n := t.state().Node(b.ID)
	if n == nil {
		return nil, notFound("node", b.ID)
	}
	if n.State != NodeLeaving {
		return nil, errs.New(errs.Conflict, "node %q is %s and stays", b.ID, n.State)
	}
	t.left(n)
	return nil, nil
}

// left takes the node out of the state; only its ID is remembered.
func (t *tx) left(n *Node) {
	drop(t, tableNodes, n.ID, n)
	gone := &RemovedNode{ID: n.ID, At: t.now}
	put(t, tableRemoved, gone, &gone.Indexes)
	for _, r := range collect(t.state().PendingRepairs(n.ID)) {
		c := *r
		c.State, c.FinishedAt, c.Message = StepAbandoned, t.now, "the node was removed"
		put(t, tableRepairs, &c, &c.Indexes)
	}
	t.forgetNode(n.ID)
}

// forgetNode takes the node out of everything that says it holds something.
func (t *tx) forgetNode(id string) {
	s := t.state()
	for _, b := range collect(s.Blobs()) {
		t.lost(b.Digest, id)
	}
	for _, d := range collect(s.Deployments("")) {
		if !d.Serves(id) {
			continue
		}
		c := d.clone()
		c.Instances = withoutInstance(c.Instances, id)
		put(t, tableDeployments, c, &c.Indexes)
	}
}
