package fsm

import "kontiki/errs"

// SettingsPut replaces the cluster's settings by ones that were made from those of a certain index; it is refused as a
// conflict when others are in force by now, so that no change that was acknowledged in between is lost. Its answer is
// the settings that are in force with it.
type SettingsPut struct {
	From     uint64   `cbor:"from"` // ModifyIndex of the cluster object they were made from
	Settings Settings `cbor:"settings"`
}

// Kind implements Body.
func (SettingsPut) Kind() Kind { return "settings.put" }

func init() { register(true, applySettingsPut, func(SettingsPut) string { return "settings" }) }

// Validate refuses settings under which a leader could not judge; the error is of code Invalid and names the field.
func (s Settings) Validate() error {
	bad := func(field, hint string) error {
		return errs.New(errs.Invalid, "setting %s is not acceptable", field).WithField(field).WithHint("%s", hint)
	}
	switch {
	case CheckDomain(s.BaseDomain) != nil:
		return bad("base_domain", "give a host name such as apps.example.org")
	case s.NodeAway < 1000 || s.NodeLost < s.NodeAway:
		return bad("node_lost", "node_away is at least 1s and node_lost not below it")
	case s.Stuck < 1000:
		return bad("stuck", "give at least 1s")
	case s.MaxAttempts < 1 || s.MaxAttempts > 100 || s.RetryBackoff < 1:
		return bad("max_attempts", "give 1 to 100 attempts and a back-off above zero")
	case s.Builds < 1 || s.Keep < 1:
		return bad("builds", "builds and keep are at least 1")
	case s.Queue != "latest" && s.Queue != "all":
		return bad("queue", `give "latest" or "all"`)
	}
	const tooLong = "give at most 720h"
	switch {
	case s.NodeLost > Longest: // and so is node_away
		return bad("node_lost", tooLong)
	case s.Stuck > Longest:
		return bad("stuck", tooLong)
	case s.RetryBackoff > Longest:
		return bad("retry_backoff", tooLong)
	}
	return s.validateDeadlines(bad)
}

func (s Settings) validateDeadlines(bad func(field, hint string) error) error {
	known := 0
	for _, p := range Phases {
		m, ok := s.Deadlines[p]
		if ok && (m < 1000 || m > Longest) {
			return bad("deadlines."+string(p), "give 1s to 720h")
		}
		if ok {
			known++
		}
	}
	if known < len(s.Deadlines) {
		return bad("deadlines", "name phases only, such as building")
	}
	return nil
}

func applySettingsPut(t *tx, _ Command, b SettingsPut) (any, error) {
	if err := b.Settings.Validate(); err != nil {
		return nil, err
	}
	old := t.state().Cluster()
	if old == nil {
		return nil, notFound("cluster", "")
	}
	if b.From != old.ModifyIndex {
		return nil, errs.New(errs.Conflict, "the settings were changed at log index %d, after they had been read at %d", old.ModifyIndex, b.From).
			WithHint("read them again and repeat the change, under a fresh Idempotency-Key")
	}
	c := *old
	c.Settings = b.Settings
	put(t, tableCluster, &c, &c.Indexes)
	return c.Settings, nil
}
