package fsm

import (
	"testing"

	"kontiki/errs"
)

func TestSettingsPut(t *testing.T) {
	m := three(t)
	s := DefaultSettings()
	s.BaseDomain, s.Queue = "apps.example.org", "all"
	m.ok(m.settings(s))
	if got := m.state().Settings(); got.BaseDomain != "apps.example.org" || got.Queue != "all" {
		t.Errorf("settings are %+v", got)
	}
	if c := m.state().Cluster(); c.ModifyIndex != m.index || c.CreateIndex != 1 || c.ID != "cluster-1" {
		t.Errorf("cluster is %+v", c)
	}
}

// Of two changes made from the same settings the second would undo the first: it is refused, also within one entry.
func TestSettingsMadeFromOldOnesAreRefused(t *testing.T) {
	m := three(t)
	one, two := DefaultSettings(), DefaultSettings()
	one.Keep, two.Builds = 9, 3
	from := m.state().Cluster().ModifyIndex
	r := m.send(m.stamp(SettingsPut{From: from, Settings: one}), m.stamp(SettingsPut{From: from, Settings: two}))
	if r[0].Err != nil || errs.CodeOf(errOf(r[1])) != errs.Conflict || r[1].Err.Hint == "" {
		t.Fatalf("results are %+v", r)
	}
	m.refuse(errs.Conflict, SettingsPut{From: from, Settings: two})
	m.refuse(errs.Conflict, SettingsPut{Settings: two})
	if got := m.state().Settings(); got.Keep != 9 || got.Builds != DefaultSettings().Builds {
		t.Errorf("settings are %+v", got)
	}
	var answer Settings
	if err := r[0].Decode(&answer); err != nil || answer.Keep != 9 {
		t.Errorf("the answer is %+v, %v", answer, err)
	}
}

func TestLongestSettingsAreAccepted(t *testing.T) {
	s := DefaultSettings()
	s.NodeAway, s.NodeLost, s.Stuck, s.RetryBackoff = Longest, Longest, Longest, Longest
	for p := range s.Deadlines {
		s.Deadlines[p] = Longest
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestSettingsPutBeforeInit(t *testing.T) {
	empty(t).refuse(errs.NotFound, SettingsPut{Settings: DefaultSettings()})
}

func TestSettingsRefusals(t *testing.T) {
	m := three(t)
	for name, c := range map[string]struct {
		change func(*Settings)
		field  string
	}{
		"base domain of one label": {func(s *Settings) { s.BaseDomain = "localhost" }, "base_domain"},
		"base domain shouted":      {func(s *Settings) { s.BaseDomain = "Example.Org" }, "base_domain"},
		"away too short":           {func(s *Settings) { s.NodeAway = 999 }, "node_lost"},
		"lost before away":         {func(s *Settings) { s.NodeLost = s.NodeAway - 1 }, "node_lost"},
		"stuck too short":          {func(s *Settings) { s.Stuck = 0 }, "stuck"},
		"no attempts":              {func(s *Settings) { s.MaxAttempts = 0 }, "max_attempts"},
		"endless attempts":         {func(s *Settings) { s.MaxAttempts = 101 }, "max_attempts"},
		"no back-off":              {func(s *Settings) { s.RetryBackoff = 0 }, "max_attempts"},
		"no builds":                {func(s *Settings) { s.Builds = 0 }, "builds"},
		"nothing kept":             {func(s *Settings) { s.Keep = 0 }, "builds"},
		"unknown queue":            {func(s *Settings) { s.Queue = "some" }, "queue"},
		"short deadline":           {func(s *Settings) { s.Deadlines = map[Phase]Millis{PhaseBuilding: 10} }, "deadlines.building"},
		"lost after a year":        {func(s *Settings) { s.NodeLost = 365 * 24 * 3_600_000 }, "node_lost"},
		"stuck after a year":       {func(s *Settings) { s.Stuck = 365 * 24 * 3_600_000 }, "stuck"},
		"back-off over a month":    {func(s *Settings) { s.RetryBackoff = Longest + 1 }, "retry_backoff"},
		"endless deadline":         {func(s *Settings) { s.Deadlines = map[Phase]Millis{PhaseBuilding: 9_223_372_036_854} }, "deadlines.building"},
		"deadline of no phase":     {func(s *Settings) { s.Deadlines = map[Phase]Millis{"lunch": 5000} }, "deadlines"},
	} {
		t.Run(name, func(t *testing.T) {
			s := DefaultSettings()
			c.change(&s)
			if err := m.refuse(errs.Invalid, m.settings(s)); err.Field != c.field || err.Hint == "" {
				t.Errorf("field %q, hint %q, want field %q and a hint", err.Field, err.Hint, c.field)
			}
		})
	}
}
