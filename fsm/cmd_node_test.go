package fsm

import (
	"strings"
	"testing"

	"kontiki/errs"
)

func TestNodeJoin(t *testing.T) {
	m := three(t)
	m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
	n := node("n4")
	n.State, n.JoinedAt, n.CreateIndex = NodeLost, 1, 1
	m.ok(NodeJoin{TokenID: secret("x"), Node: n})
	got := m.state().Node("n4")
	if got.State == NodeLost || got.CreateIndex != m.index || got.JoinedAt == 1 || got.ClusterAddr != "n4:7401" {
		t.Errorf("node is %+v", got)
	}
	if tok := m.state().JoinToken(secret("x")); tok.UsedBy != "n4" {
		t.Errorf("join token is %+v", tok)
	}
	if s := ids(m.state().Nodes(), func(n *Node) string { return n.ID }); s != "n1 n2 n3 n4" {
		t.Errorf("nodes are %q", s)
	}
}

func TestJoinTokenAdmitsOneNodeOnce(t *testing.T) {
	m := three(t)
	m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
	m.ok(NodeJoin{TokenID: secret("x"), Node: node("n4")})
	before := m.objects()
	m.ok(NodeJoin{TokenID: secret("x"), Node: node("n4")}) // its first answer was lost
	if m.objects() != before {
		t.Error("asking again changed something")
	}
	m.refuse(errs.JoinToken, NodeJoin{TokenID: secret("x"), Node: node("n5")})
}

// The answer to a join was lost and with it all that the node had made: it may ask again as long as it has never been
// in contact, whatever the leader says of it meanwhile.
func TestLostJoinAnswerCanBeRepeated(t *testing.T) {
	m := three(t)
	m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
	m.ok(NodeJoin{TokenID: secret("x"), Node: node("n4")})
	made := m.state().Node("n4").CreateIndex
	m.ok(NodeStatus{ID: "n4", State: NodeLost, Reason: "no contact"})
	again := node("n4")
	again.Incarnation, again.APIAddr = "other data", "n4:7500"
	m.ok(NodeJoin{TokenID: secret("x"), Node: again})
	if n := m.state().Node("n4"); n.Incarnation != "other data" || n.APIAddr != "n4:7500" || n.State != NodeAway || n.CreateIndex != made {
		t.Errorf("node is %+v", n)
	}
	m.refuse(errs.IdentityMismatch, NodeUpdate{ID: "n4", Incarnation: "data of n4"}) // the first one, should it exist
	same := again
	same.Incarnation, same.ClusterAddr = "third data", "n2:7401"
	if err := m.refuse(errs.Conflict, NodeJoin{TokenID: secret("x"), Node: same}); !strings.Contains(err.Hint, "--cluster-addr") {
		t.Errorf("the hint is %q", err.Hint)
	}
}

// A node that has been in contact and lost its data must not come back under its ID: it may have voted.
func TestWipedNodeDoesNotComeBack(t *testing.T) {
	for name, contact := range map[string]Body{
		"seen by the leader": NodeStatus{ID: "n4", State: NodeReady},
		"gave its account":   NodeUpdate{ID: "n4", Incarnation: "data of n4"},
	} {
		t.Run(name, func(t *testing.T) {
			m := three(t)
			m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
			m.ok(JoinTokenCreate{ID: secret("y"), ExpiresAt: 2_000_000_000})
			m.ok(NodeJoin{TokenID: secret("x"), Node: node("n4")})
			m.ok(contact)
			m.ok(NodeStatus{ID: "n4", State: NodeLost})
			wiped := node("n4")
			wiped.Incarnation = "other data"
			m.refuse(errs.JoinToken, NodeJoin{TokenID: secret("x"), Node: wiped})
			m.refuse(errs.IdentityMismatch, NodeJoin{TokenID: secret("y"), Node: wiped})
			before := m.objects()
			m.ok(NodeJoin{TokenID: secret("x"), Node: node("n4")}) // the request itself, once more
			if m.objects() != before {
				t.Error("asking again changed something")
			}
		})
	}
}

func TestNodeJoinRefusals(t *testing.T) {
	m := three(t)
	m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
	m.ok(JoinTokenCreate{ID: secret("old"), ExpiresAt: m.lastTime() + 1})
	same := node("n4")
	same.ClusterAddr = "n2:7401"
	m.refuse(errs.JoinToken, NodeJoin{TokenID: secret("unknown"), Node: node("n4")})
	m.refuse(errs.JoinToken, NodeJoin{TokenID: secret("old"), Node: node("n4")})
	m.refuse(errs.Invalid, NodeJoin{TokenID: secret("x"), Node: node("N 4")})
	m.refuse(errs.IdentityMismatch, NodeJoin{TokenID: secret("x"), Node: node("n2")})
	m.refuse(errs.Conflict, NodeJoin{TokenID: secret("x"), Node: same})
	m.ok(NodeJoin{TokenID: secret("x"), Node: node("n4")})
}

// lastTime is the time of the last command.
func (m *machine) lastTime() Time { return Time(1_000_000_000 + m.n*1000) }

func TestNodeUpdate(t *testing.T) {
	m := three(t)
	m.ok(NodeUpdate{ID: "n2", APIAddr: "a", IngressAddr: "b", Engine: "docker", Version: "2", Incarnation: "data of n2"})
	n := m.state().Node("n2")
	if n.APIAddr != "a" || n.IngressAddr != "b" || n.Engine != "docker" || n.Version != "2" || n.ClusterAddr != "n2:7401" {
		t.Errorf("node is %+v", n)
	}
	m.refuse(errs.IdentityMismatch, NodeUpdate{ID: "n2", Incarnation: "a copy"})
	m.refuse(errs.NotFound, NodeUpdate{ID: "n9"})
}

func TestNodeStatus(t *testing.T) {
	m := three(t)
	for _, state := range []NodeState{NodeReady, NodeAway, NodeLost, NodeReady} {
		m.ok(NodeStatus{ID: "n2", State: state, Reason: "because"})
		if n := m.state().Node("n2"); n.State != state || n.Reason != "because" || n.StateAt != m.lastTime() {
			t.Errorf("node is %+v", n)
		}
	}
	m.refuse(errs.BadCommand, NodeStatus{ID: "n2", State: "gone"})
	m.refuse(errs.NotFound, NodeStatus{ID: "n9", State: NodeReady})
}

func TestRemovedNodeIsNeverAcceptedAgain(t *testing.T) {
	m := three(t)
	m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
	m.gone("n3")
	if s := m.state(); s.Node("n3") != nil || !s.Removed("n3") || s.Removed("n2") {
		t.Error("n3 is not just removed")
	}
	if err := m.refuse(errs.RemovedPeer, NodeJoin{TokenID: secret("x"), Node: node("n3")}); err.Hint == "" {
		t.Error("no hint")
	}
	m.refuse(errs.RemovedPeer, NodeJoin{TokenID: secret("n3"), Node: node("n3")}) // nor with the token it came by
	m.refuse(errs.NotFound, NodeRemove{ID: "n3"})
	m.refuse(errs.NotFound, NodeUpdate{ID: "n3", Incarnation: "data of n3"})
	m.refuse(errs.NotFound, NodeStatus{ID: "n3", State: NodeReady})
	m.gone("n2")
	m.refuse(errs.QuorumLoss, NodeRemove{ID: "n1"})
}

// gone removes a node, both steps.
func (m *machine) gone(id string) {
	m.t.Helper()
	m.ok(NodeStatus{ID: id, State: NodeReady})
	m.ok(NodeRemove{ID: id})
	m.ok(NodeLeft{ID: id})
}

// A node that is leaving serves until the leader says that it is not needed, and nothing turns that round: no judgement of
// its contact, no second removal, no join that is repeated.
func TestNodeRemoveInTwoSteps(t *testing.T) {
	m := three(t)
	active := m.activate(1, "blog")
	m.ok(NodeStatus{ID: "n2", State: NodeReady})
	m.refuse(errs.Conflict, NodeLeft{ID: "n2"})
	m.ok(NodeRemove{ID: "n2"})
	index := m.state().Node("n2").ModifyIndex
	m.ok(NodeRemove{ID: "n2"})
	m.refuse(errs.StaleReport, NodeStatus{ID: "n2", State: NodeReady})
	m.refuse(errs.BadCommand, NodeStatus{ID: "n1", State: NodeLeaving})
	if n := m.state().Node("n2"); n.State != NodeLeaving || n.Reason == "" || n.ModifyIndex != index {
		t.Errorf("the node is %+v", n)
	}
	if !m.deployment(active).Serves("n2") || m.state().Removed("n2") {
		t.Error("a node that is leaving serves no more")
	}
	m.ok(NodeUpdate{ID: "n2", Version: "2", Incarnation: "data of n2"})
	if n := m.state().Node("n2"); n.State != NodeLeaving || n.Version != "2" {
		t.Errorf("the node is %+v", n)
	}
	m.ok(NodeLeft{ID: "n2"})
	if m.deployment(active).Serves("n2") || !m.state().Removed("n2") {
		t.Error("it has left and is still there")
	}
	m.refuse(errs.NotFound, NodeLeft{ID: "n2"})
}

// Who is out of contact serves nobody and goes at once; the last node that stays is not removed, though others are leaving.
func TestNodeRemoveOfWhoIsNotThere(t *testing.T) {
	for _, state := range []NodeState{NodeAway, NodeLost} {
		m := three(t)
		m.ok(NodeStatus{ID: "n3", State: state})
		m.ok(NodeRemove{ID: "n3"})
		if m.state().Node("n3") != nil || !m.state().Removed("n3") {
			t.Errorf("a node that is %s was not removed at once", state)
		}
		m.ok(NodeStatus{ID: "n2", State: NodeReady})
		m.ok(NodeRemove{ID: "n2"})
		m.refuse(errs.QuorumLoss, NodeRemove{ID: "n1"})
	}
}

// A join that is repeated, because its answer was lost, does not bring back a node that is leaving by now.
func TestRepeatedJoinOfANodeThatIsLeaving(t *testing.T) {
	m := three(t)
	m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
	m.ok(NodeJoin{TokenID: secret("x"), Node: node("n4")})
	m.ok(NodeStatus{ID: "n4", State: NodeReady})
	m.ok(NodeRemove{ID: "n4"})
	m.refuse(errs.RemovedPeer, NodeJoin{TokenID: secret("x"), Node: node("n4")})
}

func TestNodeRemoveForgetsWhatTheNodeHeld(t *testing.T) {
	m := three(t)
	active := m.activate(1, "blog")
	m.ok(BlobHeld{Digest: digest("only on n2"), Node: "n2"})
	m.ok(RepairOrder{Repair: RepairFetchBlob, Node: "n2", Digest: digest("x"), Reason: "test"})
	repair := first(t, m.state().PendingRepairs("n2"))
	m.gone("n2")
	s := m.state()
	if d := s.Deployment(active); d.Serves("n2") || !d.Serves("n1") || d.Status != StatusActive {
		t.Errorf("instances are %v", d.Instances)
	}
	if got := held(s.Blob(digest(active))); got != "n1" {
		t.Errorf("the source is held by %s", got)
	}
	if s.Blob(digest("only on n2")) != nil {
		t.Error("a blob that nobody holds is remembered")
	}
	if r := s.Repair(repair.ID); r.State != StepAbandoned || r.FinishedAt == 0 || count(s.PendingRepairs("n2")) != 0 {
		t.Errorf("its repair is %+v", r)
	}
}

func first[T any](t testing.TB, seq func(yield func(*T) bool)) *T {
	t.Helper()
	for o := range seq {
		return o
	}
	t.Fatal("there is none")
	return nil
}
