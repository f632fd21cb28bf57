package fsm

import (
	"testing"

	"kontiki/errs"
)

func TestClusterInitMakesClusterNodeAndToken(t *testing.T) {
	m := empty(t)
	if got := m.state().Settings(); got.BaseDomain != DefaultSettings().BaseDomain {
		t.Errorf("an empty state has the settings %+v", got)
	}
	b := initial()
	b.Settings.Builds = 9
	b.Node.State, b.Node.Indexes = NodeLost, Indexes{CreateIndex: 99}
	m.ok(b)
	s := m.state()
	if c := s.Cluster(); c == nil || c.ID != "cluster-1" || s.Settings().Builds != 9 || c.CreateIndex != 1 {
		t.Errorf("cluster is %+v", s.Cluster())
	}
	if n := s.Node("n1"); n == nil || n.State != NodeReady || n.CreateIndex != 1 || n.JoinedAt != 1_000_001_000 {
		t.Errorf("the first node is %+v", n)
	}
	if tok := s.TokenByHash([]byte("hash of root")); tok == nil || tok.Name != "root" || tok.CreatedAt == 0 {
		t.Errorf("the first token is %+v", tok)
	}
}

func TestClusterInitOnce(t *testing.T) {
	m := three(t)
	b := initial()
	b.ID, b.Node.ID = "cluster-2", "n9"
	m.refuse(errs.Exists, b)
}

func TestClusterInitRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ClusterInit)
		code   errs.Code
	}{
		"no cluster ID":  {func(b *ClusterInit) { b.ID = "" }, errs.BadCommand},
		"no token":       {func(b *ClusterInit) { b.Token.Hash = nil }, errs.BadCommand},
		"no node":        {func(b *ClusterInit) { b.Node.ID = "" }, errs.Invalid},
		"bad node name":  {func(b *ClusterInit) { b.Node.ID = "../n1" }, errs.Invalid},
		"empty settings": {func(b *ClusterInit) { b.Settings = Settings{} }, errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			b := initial()
			c.change(&b)
			m := empty(t)
			m.refuse(c.code, b)
			m.ok(initial())
		})
	}
}
