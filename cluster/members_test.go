package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kontiki/errs"
	"kontiki/pki"
)

func TestNextStep(t *testing.T) {
	voter := func(id string) Member { return Member{ID: id, Addr: id, Voter: true} }
	other := func(id string) Member { return Member{ID: id, Addr: id} }
	want := func(ids ...string) (d []DesiredMember) {
		for _, id := range ids {
			d = append(d, DesiredMember{id, id})
		}
		return d
	}
	five := []Member{voter("a"), voter("b"), voter("c"), voter("d"), voter("e"), other("f")}
	long := map[string]time.Duration{"e": time.Minute}
	for name, c := range map[string]struct {
		s    survey
		kind stepKind
		id   string
	}{
		"nothing to do":             {survey{members: []Member{voter("a")}, desired: want("a")}, stepNone, ""},
		"a new node answers":        {survey{members: []Member{voter("a")}, desired: want("a", "b"), behind: map[string]uint64{"b": 900}}, stepAdd, "b"},
		"a new node does not":       {survey{members: []Member{voter("a")}, desired: want("a", "b")}, stepNone, ""},
		"not caught up":             {survey{members: []Member{voter("a"), other("b")}, desired: want("a", "b"), behind: map[string]uint64{"b": 101}}, stepNone, ""},
		"caught up":                 {survey{members: []Member{voter("a"), other("b"), other("c")}, desired: want("a", "b", "c"), behind: map[string]uint64{"b": 100, "c": 3}}, stepPromote, "c"},
		"silent, so not promoted":   {survey{members: []Member{voter("a"), other("b")}, desired: want("a", "b"), behind: map[string]uint64{"b": 0}, silent: map[string]time.Duration{"b": 1}}, stepNone, ""},
		"five vote already":         {survey{members: five, desired: want("a", "b", "c", "d", "e", "f"), behind: map[string]uint64{"f": 0}}, stepNone, ""},
		"a lost voter is replaced":  {survey{members: five, desired: want("a", "b", "c", "d", "e", "f"), behind: map[string]uint64{"f": 0}, silent: long}, stepDemote, "e"},
		"but not without successor": {survey{members: five, desired: want("a", "b", "c", "d", "e", "f"), silent: long}, stepNone, ""},
		"removed":                   {survey{members: []Member{voter("a"), voter("b"), voter("c")}, desired: want("a", "b")}, stepRemove, "c"},
		"removed while silent":      {survey{members: []Member{voter("a"), voter("b"), voter("c")}, desired: want("a", "b"), silent: map[string]time.Duration{"c": time.Hour}}, stepRemove, "c"},
		"three to two to one":       {survey{members: []Member{voter("a"), voter("b")}, desired: want("a")}, stepRemove, "b"},
		"would lose the majority":   {survey{members: []Member{voter("a"), voter("b"), voter("c")}, desired: want("a", "b"), silent: map[string]time.Duration{"b": 1}}, stepNone, "c"},
		"the leader itself":         {survey{self: "a", members: []Member{voter("a"), voter("b"), voter("c")}, desired: want("b", "c")}, stepTransfer, "a"},
		"the last one":              {survey{self: "a", members: []Member{voter("a")}, desired: want("b")}, stepNone, "a"},
		"no non-voter is needed":    {survey{members: []Member{voter("a"), other("b")}, desired: want("a"), silent: map[string]time.Duration{"b": 1}}, stepRemove, "b"},
		"nobody is desired at all":  {survey{members: []Member{voter("a"), voter("b"), voter("c")}}, stepNone, ""},
		"moved":                     {survey{members: []Member{voter("a"), voter("b")}, desired: []DesiredMember{{"a", "a"}, {"b", "new"}}, behind: map[string]uint64{"b": 0}}, stepMove, "b"},
		"moved and not there":       {survey{members: []Member{voter("a"), voter("b")}, desired: []DesiredMember{{"a", "a"}, {"b", "new"}}}, stepNone, ""},
	} {
		c.s.lost = 30 * time.Second
		if got := nextStep(c.s); got.kind != c.kind || got.member.ID != c.id {
			t.Errorf("%s: %s %s", name, got.kind, got.member.ID)
		}
	}
}

func TestJoinPromoteRemove(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(1)
	g.propose(g.leader(), "alone")
	for _, id := range []string{"n2", "n3"} {
		g.open(id)
	}
	g.join(3)
	leader := g.leader()
	var got []Member
	follower := g.follower()
	g.until("it knows all voters", func() bool {
		return len(follower.Members()) == 3 && !slices.ContainsFunc(follower.Members(), func(m Member) bool { return !m.Voter })
	})
	for _, m := range follower.Members() {
		got = append(got, Member{ID: m.ID, Voter: m.Voter, Leader: m.Leader})
	}
	want := []Member{{ID: "n1", Voter: true, Leader: leader.id == "n1"}, {ID: "n2", Voter: true}, {ID: "n3", Voter: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for id, n := range g.nodes {
		g.until("it knows all members", func() bool { return len(n.Members()) == 3 })
		if err := n.CheckRemoval("n2"); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if err := n.CheckRemoval("n9"); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("%s: %v", id, err)
		}
	}
	// 3 → 2 → 1, the leader first: it hands over and the next one removes it.
	g.desired = []DesiredMember{{"n2", g.nodes["n2"].addr}, {"n3", g.nodes["n3"].addr}}
	g.manage(func() bool { return !leader.IsLeader() })
	g.manage(func() bool { return len(g.leader().Members()) == 2 })
	g.must(g.leader().Snapshot(soon(t))) // right after a change of the configuration
	last := g.leader()
	g.desired = []DesiredMember{{last.id, last.addr}}
	g.manage(func() bool { return len(last.Members()) == 1 })
	g.propose(last, "alone again")
	if err := last.CheckRemoval(last.id); errs.CodeOf(err) != errs.QuorumLoss {
		t.Errorf("the last one: %v", err)
	}
}

func TestRemovalThatWouldLoseTheMajority(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	leader := g.leader()
	var others []string
	for id := range g.nodes {
		if id != leader.id {
			others = append(others, id)
		}
	}
	g.kill(others[0])
	g.until("its silence is noticed", func() bool { return leader.silences()[others[0]] > 0 })
	if err := leader.CheckRemoval(others[1]); errs.CodeOf(err) != errs.QuorumLoss {
		t.Errorf("the one that works: %v", err)
	}
	if err := leader.CheckRemoval(others[0]); err != nil {
		t.Errorf("the one that is dead: %v", err)
	}
	if err := g.nodes[others[1]].CheckRemoval(others[1]); errs.CodeOf(err) != errs.QuorumLoss {
		t.Errorf("asked through a follower: %v", err)
	}
	if reachable, all := leader.voters(); reachable != 2 || all != 3 {
		t.Errorf("%d of %d voters answer", reachable, all)
	}
	if len(g.nodes[others[1]].PeerHealth()) != 0 {
		t.Error("only the leader knows")
	}
	g.open(others[0])
	g.until("it is back", func() bool { return leader.PeerHealth()[others[0]] == 0 })
}

func TestSixthNodeReplacesALostVoter(t *testing.T) {
	g := newGroup(t, true, func(c *Config) { c.Timing.Lost = 200 * time.Millisecond })
	for i := 1; i <= 6; i++ {
		g.open(fmt.Sprintf("n%d", i))
	}
	g.must(g.nodes["n1"].Bootstrap("n1"))
	g.join(6)
	leader, spare := g.leader(), ""
	for _, m := range leader.Members() {
		if !m.Voter {
			spare = m.ID
		}
	}
	lost := "n1"
	if leader.id == lost {
		lost = "n2"
	}
	if lost == spare {
		lost = "n3"
	}
	g.kill(lost)
	g.manage(func() bool {
		for _, m := range g.leader().Members() {
			if m.ID == spare && m.Voter {
				return true
			}
		}
		return false
	})
	if _, all := g.leader().voters(); all != maxVoters {
		t.Errorf("%d voters", all)
	}
}

func TestANodeThatMoved(t *testing.T) {
	g := newGroup(t, false, nil)
	g.form(3)
	mover := g.follower().id
	g.kill(mover)
	g.nodes[mover].addr = "127.0.0.1:0"
	g.open(mover)
	for i, d := range g.desired {
		if d.ID == mover {
			g.desired[i].Addr = g.nodes[mover].addr
		}
	}
	r := g.propose(g.leader(), "while away")
	g.manage(func() bool { return g.nodes[mover].machine.Applied() >= r.Index })
}

// A removed node's ID is refused in both directions, and it is told why.
func TestRemovedPeer(t *testing.T) {
	ca, err := pki.NewCA("c1")
	if err != nil {
		t.Fatal(err)
	}
	removed := errs.New(errs.RemovedPeer, "node n2 was removed").WithHint("join under a new ID")
	port := func(id string, authorize func(string) error) *Port {
		bundle, err := ca.Issue(id, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewPort(PortConfig{Bind: "127.0.0.1:0", Bundle: bundle, Authorize: authorize})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	gone := port("n2", nil)
	n1 := port("n1", func(id string) error {
		if id == "n2" {
			return removed
		}
		return nil
	})
	get := func(from *Port, to string, at *Port) error {
		c := &Cluster{cfg: Config{Network: from}}
		_, err := c.call(soon(t), request{http.MethodGet, Member{ID: to, Addr: at.Addr()}, pathStatus, nil})
		return err
	}
	if err := get(gone, "n1", n1); errs.CodeOf(err) != errs.RemovedPeer || errs.From(err).Hint != removed.Hint {
		t.Errorf("it is told: %v", err)
	}
	if err := get(n1, "n2", gone); errs.CodeOf(err) != errs.RemovedPeer {
		t.Errorf("nobody dials it: %v", err)
	}
	conn, err := gone.Raft().Dial(serverAddress("n1", n1.Addr()), patience)
	if err == nil { // TLS 1.3: the client is done before the server has looked
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil {
		t.Error("it may speak Raft")
	}
	if _, err := n1.Raft().Dial(serverAddress("n2", gone.Addr()), patience); errs.CodeOf(err) != errs.RemovedPeer {
		t.Errorf("raft dials: %v", err)
	}
	if _, err := NewPort(PortConfig{Bind: n1.Addr(), Bundle: n1.cfg.Bundle}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("one port twice: %v", err)
	}
}

func TestPortsReachWhomTheyMean(t *testing.T) {
	g := newGroup(t, false, nil)
	a, b := g.open("n1"), g.open("n2")
	for _, to := range []struct {
		id string
		ok bool
	}{{"n2", true}, {"", true}, {"n3", false}} {
		_, err := a.call(soon(t), request{http.MethodGet, Member{ID: to.id, Addr: b.addr}, pathStatus, nil})
		if (err == nil) != to.ok {
			t.Errorf("meaning %q: %v", to.id, err)
		}
	}
	conn, err := a.net.Raft().Dial(serverAddress("n2", b.addr), patience)
	g.must(err)
	a.net.(*Port).Disconnect("n2")
	if _, err := conn.Write([]byte{0}); err == nil {
		t.Error("it was cut off")
	}
	if err := conn.Close(); err == nil {
		t.Error("it was closed before")
	}
	req, err := http.NewRequestWithContext(soon(t), http.MethodGet, PeerURL("n2", b.addr, "/nowhere"), nil)
	g.must(err)
	resp, err := a.net.Client().Do(req)
	g.must(err)
	if g.must(resp.Body.Close()); resp.StatusCode != http.StatusNotFound {
		t.Error(resp.Status)
	}
}

func TestManageMembersStopsWithItsContext(t *testing.T) {
	g := newGroup(t, true, nil)
	g.form(1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.leader().ManageMembers(ctx, func() []DesiredMember { return nil }, func() <-chan struct{} { return nil })
	if err := g.leader().take(ctx, step{kind: stepRemove, member: Member{ID: "n9"}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Regression: a node that was out of contact under the old leader was said to be in contact by a fresh one, which could
// not have noticed its silence yet.
func TestAFreshLeaderCallsNobodyPresent(t *testing.T) {
	c := &Cluster{cfg: Config{NodeID: "n1", Timing: Timing{Try: time.Second}}}
	c.view.since = time.Now()
	if got := c.aged(map[string]time.Duration{"n2": 0, "n3": time.Minute}); got["n2"] != 1 || got["n3"] != time.Minute {
		t.Fatalf("%v", got)
	}
	c.view.since = time.Now().Add(-2 * time.Second)
	if got := c.aged(map[string]time.Duration{"n2": 0}); got["n2"] != 0 {
		t.Fatalf("%v", got)
	}
}
