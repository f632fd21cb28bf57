package fsm

import "kontiki/errs"

// NodeJoin admits a node with a join token, which it uses up. The same node with the same token may ask again, also from
// another empty data directory: its first answer may have been lost. That ends with its first contact: from then on it
// may hold or have voted for what the cluster goes by, and under its ID only the same data comes back.
type NodeJoin struct {
	TokenID string `cbor:"token_id"`
	Node    Node   `cbor:"node"`
}

// Kind implements Body.
func (NodeJoin) Kind() Kind { return "node.join" }

// NodeUpdate is a node's own account of itself, given at each start.
type NodeUpdate struct {
	ID          string `cbor:"id"`
	APIAddr     string `cbor:"api_addr"`
	IngressAddr string `cbor:"ingress_addr"`
	Engine      string `cbor:"engine"`
	Version     string `cbor:"version"`
	Incarnation string `cbor:"incarnation"`
}

// Kind implements Body.
func (NodeUpdate) Kind() Kind { return "node.update" }

// NodeStatus is the leader's judgement of a node's contact.
type NodeStatus struct {
	ID     string    `cbor:"id"`
	State  NodeState `cbor:"state"`
	Reason string    `cbor:"reason"`
}

// Kind implements Body.
func (NodeStatus) Kind() Kind { return "node.status" }

func init() {
	register(true, applyNodeJoin, func(b NodeJoin) string { return b.Node.ID })
	register(false, applyNodeUpdate, func(b NodeUpdate) string { return b.ID })
	register(true, applyNodeStatus, func(b NodeStatus) string { return b.ID })
}

func applyNodeJoin(t *tx, _ Command, b NodeJoin) (any, error) {
	s := t.state()
	if err := CheckName("node", b.Node.ID); err != nil {
		return nil, err
	}
	if s.Removed(b.Node.ID) {
		return nil, errs.New(errs.RemovedPeer, "node %q was removed from this cluster", b.Node.ID).WithHint("join under a new ID, on an empty data directory")
	}
	tok := s.JoinToken(b.TokenID)
	if tok == nil || tok.ExpiresAt < t.now {
		return nil, errs.New(errs.JoinToken, "the join token is unknown or expired").WithHint("make a new one with: kontiki token join")
	}
	known := s.Node(b.Node.ID)
	again := known != nil && tok.UsedBy == b.Node.ID
	switch {
	case again && known.State == NodeLeaving:
		return nil, errs.New(errs.RemovedPeer, "node %q is being removed from this cluster", b.Node.ID).WithHint("join under a new ID, on an empty data directory")
	case again && known.Incarnation == b.Node.Incarnation:
		return nil, nil
	case tok.UsedBy != "" && (!again || tok.Settled):
		return nil, errs.New(errs.JoinToken, "the join token was used by node %q", tok.UsedBy).WithHint("make a new one with: kontiki token join")
	case known != nil && !again:
		return nil, errs.New(errs.IdentityMismatch, "a node %q is a member already", b.Node.ID).
			WithHint("choose another ID; a node that lost its data joins under a new one, after: kontiki peers remove %s", b.Node.ID)
	}
	for n := range s.Nodes() {
		if n.ClusterAddr == b.Node.ClusterAddr && n.ID != b.Node.ID {
			return nil, errs.New(errs.Conflict, "the cluster address %s is node %q's", n.ClusterAddr, n.ID).WithField("cluster_addr").
				WithHint("join with an address of its own: --advertise with this machine's, or other ports in --cluster-addr, --api-addr and --ingress-addr")
		}
	}
	n := b.Node
	n.State, n.Reason = NodeAway, "it has joined and not been in contact yet"
	n.StateAt, n.JoinedAt, n.Indexes = t.now, t.now, Indexes{}
	if again {
		n.Indexes = known.Indexes
	}
	put(t, tableNodes, &n, &n.Indexes)
	used := *tok
	used.UsedBy = n.ID
	put(t, tableJoinTokens, &used, &used.Indexes)
	return nil, nil
}

func applyNodeUpdate(t *tx, _ Command, b NodeUpdate) (any, error) {
	n := t.state().Node(b.ID)
	if n == nil {
		return nil, notFound("node", b.ID)
	}
	if n.Incarnation != "" && n.Incarnation != b.Incarnation {
		return nil, errs.New(errs.IdentityMismatch, "node %q is known with other data", b.ID).
			WithHint("two machines run under one ID, or an old copy of its data was started: stop one of them")
	}
	c := *n
	c.APIAddr, c.IngressAddr, c.Engine, c.Version, c.Incarnation = b.APIAddr, b.IngressAddr, b.Engine, b.Version, b.Incarnation
	put(t, tableNodes, &c, &c.Indexes)
	t.settle(n.ID)
	return nil, nil
}

// settle ends the join token that a node came by: the node has been in contact.
func (t *tx) settle(node string) {
	for _, tok := range collect(all[JoinToken](t.state(), tableJoinTokens)) {
		if tok.UsedBy == node && !tok.Settled {
			c := *tok
			c.Settled = true
			put(t, tableJoinTokens, &c, &c.Indexes)
		}
	}
}

func applyNodeStatus(t *tx, _ Command, b NodeStatus) (any, error) {
	n := t.state().Node(b.ID)
	if n == nil {
		return nil, notFound("node", b.ID)
	}
	if b.State != NodeReady && b.State != NodeAway && b.State != NodeLost {
		return nil, errs.New(errs.BadCommand, "node state %q", clip(string(b.State)))
	}
	if n.State == NodeLeaving {
		return nil, errs.New(errs.StaleReport, "node %q is leaving", b.ID)
	}
	c := *n
	c.State, c.Reason, c.StateAt = b.State, b.Reason, t.now
	put(t, tableNodes, &c, &c.Indexes)
	if b.State == NodeReady {
		t.settle(n.ID)
	}
	return nil, nil
}

// collect gives all that seq visits; what a transaction changes must not be iterated at the same time.
func collect[T any](seq func(yield func(*T) bool)) []*T {
	var out []*T
	for o := range seq {
		out = append(out, o)
	}
	return out
}

func count[T any](seq func(yield func(*T) bool)) int {
	n := 0
	for range seq {
		n++
	}
	return n
}
