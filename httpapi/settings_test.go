package httpapi_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/fsm"
	"kontiki/httpapi"
)

// meeting is a replica whose first proposal waits until another node's is made from the same state.
type meeting struct {
	httpapi.Replica
	first sync.Once
	all   *sync.WaitGroup
}

func (m *meeting) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	m.first.Do(func() { m.all.Done(); m.all.Wait() })
	return m.Replica.Propose(ctx, cmd)
}

// Two nodes that read the same settings and each change one of them: both changes last.
func TestConcurrentSettingsAreNotLost(t *testing.T) {
	const nodes = 2
	var all sync.WaitGroup
	all.Add(nodes)
	g := newGroup(t, nodes, func(d *httpapi.Deps) { d.Replica = &meeting{Replica: d.Replica, all: &all} })
	changes := []map[string]any{{"keep": 9}, {"builds": 3, "deadlines": map[string]string{"building": "2m"}}}
	answers := make([]fsm.Settings, nodes)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range nodes {
		c := g.client(t, adminSecret, i)
		wg.Go(func() {
			var err error
			if answers[i], err = c.UpdateSettings(ctx, changes[i]); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	s := g.replicas[0].State().Settings()
	if s.Keep != 9 || s.Builds != 3 || s.Deadlines[fsm.PhaseBuilding] != 120_000 || s.Deadlines[fsm.PhaseHealthCheck] != 300_000 {
		t.Errorf("settings are %+v", s)
	}
	if answers[0].Keep != 9 || answers[1].Builds != 3 {
		t.Errorf("the answers are %+v", answers)
	}
}

// A change that others came before is made anew under the same key, and repeating the request gives its answer again.
func TestSettingsReplayAfterConflict(t *testing.T) {
	var once sync.Once
	var g *group
	g = newGroup(t, 1, func(d *httpapi.Deps) {
		d.Replica = &before{Replica: d.Replica, do: func() {
			once.Do(func() {
				s := fsm.DefaultSettings()
				s.Keep = 9
				g.must(t, fsm.SettingsPut{From: 1, Settings: s})
			})
		}}
	})
	patch := func() (string, bool) {
		res := g.ask(t, "PATCH", "/api/cluster/settings", `{"builds":3}`, api.HeaderKey, "key")
		if res.StatusCode != 200 {
			t.Fatal(res.Status, read(t, res))
		}
		return read(t, res), res.Header.Get(api.HeaderReplayed) == "true"
	}
	first, replayed := patch()
	if replayed || !strings.Contains(first, `"builds":3`) || !strings.Contains(first, `"keep":9`) {
		t.Errorf("replayed %v: %s", replayed, first)
	}
	c := g.replicas[0].State().Cluster()
	later := c.Settings
	later.Builds = 5
	g.must(t, fsm.SettingsPut{From: c.ModifyIndex, Settings: later})
	again, replayed := patch()
	if !replayed || again != first {
		t.Errorf("replayed %v: %s, the first time %s", replayed, again, first)
	}
	if got := g.replicas[0].State().Settings().Builds; got != 5 {
		t.Errorf("the repetition took effect: builds is %d", got)
	}
}

// before is a replica before whose every proposal something happens.
type before struct {
	httpapi.Replica
	do func()
}

func (b *before) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	b.do()
	return b.Replica.Propose(ctx, cmd)
}

// Somebody who always comes before gets a change refused in the end, not tried for ever.
func TestSettingsConflictForEver(t *testing.T) {
	var g *group
	rival := 0
	g = newGroup(t, 1, func(d *httpapi.Deps) {
		d.Replica = &before{Replica: d.Replica, do: func() {
			rival++
			c := g.replicas[0].State().Cluster()
			s := c.Settings
			s.Keep = rival
			g.must(t, fsm.SettingsPut{From: c.ModifyIndex, Settings: s})
		}}
	})
	res := g.ask(t, "PATCH", "/api/cluster/settings", `{"builds":3}`)
	if body := read(t, res); res.StatusCode != 409 || !strings.Contains(body, `"conflict"`) {
		t.Error(fmt.Sprint(res.Status), body)
	}
}
