package fsm

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"kontiki/errs"
)

func TestProjectCreate(t *testing.T) {
	m := three(t)
	m.ok(ProjectCreate{Name: "blog", Domains: []string{"www.b.org", "a.org", "www.b.org"}, Metadata: map[string]string{"team": "web"}})
	p := m.state().Project("blog")
	if p == nil || strings.Join(p.Domains, " ") != "a.org www.b.org" || p.NextNumber != 1 || p.Metadata["team"] != "web" || p.CreateIndex != m.index {
		t.Fatalf("project is %+v", p)
	}
	if got := m.state().ProjectByDomain("www.b.org"); got != p {
		t.Errorf("the domain leads to %+v", got)
	}
	if got := m.state().ProjectByDomain("b.org"); got != nil {
		t.Errorf("a part of the domain leads to %+v", got)
	}
}

func TestProjectCreateRefusals(t *testing.T) {
	m := three(t)
	m.ok(ProjectCreate{Name: "taken", Domains: []string{"taken.org"}})
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("d%d.org", i)
	}
	for name, c := range map[string]struct {
		body ProjectCreate
		code errs.Code
	}{
		"empty name":            {ProjectCreate{}, errs.Invalid},
		"escaping name":         {ProjectCreate{Name: "../x"}, errs.Invalid},
		"leading dash":          {ProjectCreate{Name: "-x"}, errs.Invalid},
		"double dash":           {ProjectCreate{Name: "a--b"}, errs.Invalid},
		"long name":             {ProjectCreate{Name: strings.Repeat("a", 64)}, errs.Invalid},
		"taken name":            {ProjectCreate{Name: "taken"}, errs.Exists},
		"taken domain":          {ProjectCreate{Name: "new", Domains: []string{"taken.org"}}, errs.Exists},
		"no domain":             {ProjectCreate{Name: "new", Domains: []string{"localhost"}}, errs.Invalid},
		"domain below the base": {ProjectCreate{Name: "new", Domains: []string{"x.kontiki.localhost"}}, errs.Invalid},
		"the base domain":       {ProjectCreate{Name: "new", Domains: []string{"kontiki.localhost"}}, errs.Invalid},
		"many domains":          {ProjectCreate{Name: "new", Domains: many}, errs.Invalid},
		"bad metadata":          {ProjectCreate{Name: "new", Metadata: map[string]string{"": "x"}}, errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) { m.refuse(c.code, c.body) })
	}
}

func TestProjectUpdate(t *testing.T) {
	m := three(t)
	m.ok(ProjectCreate{Name: "blog", Domains: []string{"a.org"}, Metadata: map[string]string{"a": "1", "b": "2"}})
	before := m.state().Project("blog")
	m.ok(ProjectUpdate{Name: "blog", Metadata: map[string]string{"a": "", "c": "3"}})
	p := m.state().Project("blog")
	if !maps.Equal(p.Metadata, map[string]string{"b": "2", "c": "3"}) || len(p.Domains) != 1 {
		t.Errorf("merged into %+v", p)
	}
	if before.Metadata["a"] != "1" || before.ModifyIndex == p.ModifyIndex || p.CreateIndex != before.CreateIndex {
		t.Errorf("the object handed out before changed: %+v, %+v", before, p)
	}
	m.ok(ProjectUpdate{Name: "blog", Domains: &[]string{"b.org"}})
	if s := m.state(); s.ProjectByDomain("a.org") != nil || s.ProjectByDomain("b.org") == nil {
		t.Errorf("domains are %v", s.Project("blog").Domains)
	}
	m.ok(ProjectUpdate{Name: "blog", Domains: &[]string{}})
	if s := m.state(); s.ProjectByDomain("b.org") != nil || len(s.Project("blog").Metadata) != 2 {
		t.Errorf("project is %+v", s.Project("blog"))
	}
	m.ok(ProjectCreate{Name: "other", Domains: []string{"a.org"}})
	m.refuse(errs.Exists, ProjectUpdate{Name: "blog", Domains: &[]string{"a.org"}})
	m.refuse(errs.NotFound, ProjectUpdate{Name: "none"})
}

// The merged whole has to keep the limits, or a project would grow without end by small steps.
func TestProjectMetadataIsBoundedAsAWhole(t *testing.T) {
	m := three(t)
	m.ok(ProjectCreate{Name: "blog"})
	for i := range 64 {
		m.ok(ProjectUpdate{Name: "blog", Metadata: map[string]string{fmt.Sprint("k", i): "v"}})
	}
	m.refuse(errs.Invalid, ProjectUpdate{Name: "blog", Metadata: map[string]string{"one": "more"}})
	m.ok(ProjectUpdate{Name: "blog", Metadata: map[string]string{"one": "instead", "k0": ""}})
}

// Which of several bad keys is named must not depend on the order of a map: the answer is part of the state.
func TestMetadataErrorIsTheSameEveryTime(t *testing.T) {
	bad := map[string]string{}
	for i := range 20 {
		bad[fmt.Sprintf("key-%02d", i)] = "\x07"
	}
	for range 50 {
		if err := CheckMetadata(bad); !strings.Contains(fmt.Sprint(err), `"key-00"`) {
			t.Fatal(err)
		}
	}
}

func TestProjectDelete(t *testing.T) {
	m := three(t)
	active := m.activate(1, "blog")
	other := m.activate(2, "other")
	queued := m.create(3, "blog")
	m.ok(RepairOrder{Repair: RepairCleanup, Node: "n1", Project: "blog", Deployment: active, Reason: "test"})
	m.ok(ProjectDelete{Name: "blog"})
	s := m.state()
	if s.Project("blog") != nil || s.Deployment(active) != nil || s.Deployment(queued) != nil || s.Deployment(other) == nil {
		t.Error("something is left of the project, or too much is gone")
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		if got := ids(s.PendingRepairs(n), func(r *Repair) string { return string(r.Kind) + ":" + r.Project }); got != "forget:blog" {
			t.Errorf("node %s has the orders %q", n, got)
		}
	}
	want := map[string]bool{tableProjects + "/blog": true, tableDeployments + "/" + active: true, tableDeployments + "/" + queued: true}
	for x := range all[Tombstone](s, tableTombstones) {
		delete(want, x.Table+"/"+x.Key)
	}
	if len(want) != 0 {
		t.Errorf("no tombstones for %v", want)
	}
	m.refuse(errs.NotFound, ProjectDelete{Name: "blog"})
	if m.ok(creation(4, "blog")); m.deployment(nth(4)).Number != 1 {
		t.Error("a new project of the old name does not count from 1")
	}
}

func TestProjectDeleteWaitsForARunningDeployment(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	if err := m.refuse(errs.Conflict, ProjectDelete{Name: "blog"}); !strings.Contains(err.Hint, id) {
		t.Errorf("hint is %q", err.Hint)
	}
	m.ok(DeploymentCancel{ID: id})
	m.ok(ProjectDelete{Name: "blog"})
}
