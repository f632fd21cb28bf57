package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func deploymentIDs(seq func(yield func(*Deployment) bool)) string {
	return ids(seq, func(d *Deployment) string { return strings.TrimLeft(d.ID[22:], "0") })
}

func projectNames(seq func(yield func(*Project) bool)) string {
	return ids(seq, func(p *Project) string { return p.Name })
}

func TestDeploymentsFromTheNewestDown(t *testing.T) {
	m := three(t)
	for _, n := range []int{3, 1, 5, 4, 2} {
		m.create(n, fmt.Sprint("p", n))
	}
	for before, want := range map[string]string{"": "5 4 3 2 1", nth(4): "3 2 1", nth(9): "5 4 3 2 1", nth(1): "", "0": "", "z": "5 4 3 2 1"} {
		if got := deploymentIDs(m.state().Deployments(before)); got != want {
			t.Errorf("before %q: %s, want %s", before, got, want)
		}
	}
	for d := range m.state().Deployments("") {
		if d.ID != nth(5) {
			t.Errorf("the visit begins with %s, or does not stop", d.ID)
		}
		break
	}
}

func TestDeploymentsOfAProject(t *testing.T) {
	m := three(t)
	for n, project := range []string{"a", "ab", "a", "b", "a", "a-b"} {
		m.create(n+1, project)
	}
	for _, c := range []struct {
		project string
		before  uint64
		want    string
	}{{"a", 0, "5 3 1"}, {"a", 3, "3 1"}, {"a", 2, "1"}, {"a", 1, ""}, {"a", 99, "5 3 1"}, {"ab", 0, "2"}, {"a-b", 0, "6"}, {"none", 0, ""}, {"", 0, ""}} {
		if got := deploymentIDs(m.state().DeploymentsOf(c.project, c.before)); got != c.want {
			t.Errorf("of %q before %d: %s, want %s", c.project, c.before, got, c.want)
		}
	}
}

func TestDeploymentsSinceAnIndex(t *testing.T) {
	m := three(t)
	for n := range 3 {
		m.create(n+1, fmt.Sprint("p", n))
	}
	at := m.index
	m.ok(DeploymentStart{ID: nth(2), Builder: "n1", Targets: []string{"n1"}})
	m.ok(DeploymentCancel{ID: nth(1)})
	for since, want := range map[uint64]string{0: "3 2 1", at - 1: "3 2 1", at: "2 1", at + 1: "1", at + 2: "", 1 << 60: ""} {
		if got := deploymentIDs(m.state().DeploymentsSince(since)); got != want {
			t.Errorf("since %d: %s, want %s", since, got, want)
		}
	}
}

func TestProjectsCursor(t *testing.T) {
	m := three(t)
	for _, name := range []string{"ab", "a", "b", "a-b", "a0"} {
		m.ok(ProjectCreate{Name: name})
	}
	for after, want := range map[string]string{"": "a a-b a0 ab b", "a": "a-b a0 ab b", "a-b": "a0 ab b", "aa": "ab b", "b": "", "zz": ""} {
		if got := projectNames(m.state().Projects(after)); got != want {
			t.Errorf("after %q: %s, want %s", after, got, want)
		}
	}
}

func TestLookups(t *testing.T) {
	m := three(t)
	s := m.state()
	if s.Project("") != nil || s.Deployment("") != nil || s.Node("n") != nil || s.Blob("") != nil || s.Repair("") != nil ||
		s.JoinToken("") != nil || s.ProjectByDomain("") != nil || s.TokenByHash(nil) != nil || s.ActiveOf(nil) != nil || s.ActiveOf(&Project{}) != nil {
		t.Error("something is found under a name that nothing has")
	}
	for n := 1; n <= 2; n++ {
		m.start(n, fmt.Sprint("p", n))
	}
	if got := deploymentIDs(m.state().DeploymentsIn(StatusRunning)); got != "1 2" {
		t.Errorf("running are %s", got)
	}
	if got := deploymentIDs(m.state().DeploymentsIn(StatusFailed)); got != "" {
		t.Errorf("failed ones are not indexed, and yet: %s", got)
	}
	if got := ids(m.state().Blobs(), func(b *Blob) string { return b.Digest }); strings.Count(got, "sha256:") != 2 {
		t.Errorf("blobs are %s", got)
	}
	if with([]string{"a", "c"}, "b")[1] != "b" || len(with([]string{"a"}, "a")) != 1 || len(without([]string{"a"}, "a")) != 0 {
		t.Error("sets are wrong")
	}
	if Majority(1) != 1 || Majority(2) != 2 || Majority(3) != 2 || Majority(5) != 3 {
		t.Error("majorities are wrong")
	}
}

// Whatever names there are, a cursor walks all of them once and in order, and every page begins where the last ended.
func TestProjectsCursorWalksAll(t *testing.T) {
	name := rapid.StringMatching(`[a-c]([a-c-]?[a-c])?`)
	rapid.Check(t, func(rt *rapid.T) {
		m := empty(t)
		want := rapid.SliceOfDistinct(name, func(s string) string { return s }).Draw(rt, "names")
		for _, n := range want {
			m.ok(ProjectCreate{Name: n})
		}
		slices.Sort(want)
		var got []string
		for after := ""; ; {
			page := 0
			for p := range m.state().Projects(after) {
				if got, after = append(got, p.Name), p.Name; page == 1 {
					break
				}
				page++
			}
			if page == 0 {
				break
			}
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("walked %v, want %v", got, want)
		}
	})
}
