package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"time"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

func (s *server) listTokens(c *call) error {
	l, err := c.listing("tokens")
	if err != nil {
		return err
	}
	state, err := s.view(c)
	if err != nil {
		return err
	}
	p := &page[*fsm.Token]{listing: l}
	for t := range state.Tokens() {
		if t.ID > l.after && !p.add(t, t.ID) {
			break
		}
	}
	return p.answer(c)
}

func (s *server) createToken(c *call) error {
	var in api.TokenCreate
	if err := c.decodeJSON(&in); err != nil {
		return err
	}
	if err := checkName("name", "token", in.Name); err != nil {
		return err
	}
	if in.Role == "" {
		in.Role = roleAdmin
	}
	if in.Role != roleAdmin {
		return errs.New(errs.Invalid, "there is no role %q", clip(in.Role)).WithField("role").WithHint("give %s", roleAdmin)
	}
	secret, err := s.newSecret(c, "token")
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(secret))
	token := fsm.Token{ID: fsm.NewID(), Name: in.Name, Role: in.Role, Hash: hash[:]}
	if _, err := s.propose(c, fsm.TokenCreate{Token: token}, c.changes); err != nil {
		return err
	}
	made := s.Replica.State().TokenByHash(hash[:])
	if made == nil {
		return goneSince("token", in.Name)
	}
	c.Writer.Header().Set("Location", "/api/tokens/"+made.ID)
	return c.reply(http.StatusCreated, api.TokenCreated{Token: *made, Secret: secret})
}

func (s *server) revokeToken(c *call) error {
	if _, err := s.propose(c, fsm.TokenRevoke{ID: c.Param("id")}, nil); err != nil {
		return err
	}
	return c.empty()
}

const (
	defaultJoinTTL = fsm.Millis(60 * 60 * 1000)
	shortestTTL    = fsm.Millis(60 * 1000)
	longestTTL     = fsm.Millis(7 * 24 * 60 * 60 * 1000)
)

func (s *server) createJoinToken(c *call) error {
	in := api.JoinTokenCreate{TTL: defaultJoinTTL}
	if err := c.decodeJSON(&in); err != nil {
		return err
	}
	if in.TTL < shortestTTL || in.TTL > longestTTL {
		return errs.New(errs.Invalid, "a join token cannot be good for %s", in.TTL.Std()).WithField("ttl").
			WithHint("give a duration from 1m to 168h")
	}
	secret, err := s.newSecret(c, "join token")
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(secret))
	id := hex.EncodeToString(sum[:])
	expires := fsm.Time(time.Now().UnixMilli()) + fsm.Time(in.TTL)
	if _, err := s.propose(c, fsm.JoinTokenCreate{ID: id, ExpiresAt: expires}, c.changes); err != nil {
		return err
	}
	if made := s.Replica.State().JoinToken(id); made != nil {
		expires = made.ExpiresAt
	}
	return c.reply(http.StatusCreated, api.JoinTokenCreated{Token: s.JoinToken(secret), ExpiresAt: expires})
}

func (s *server) getSettings(c *call) error {
	state, err := s.view(c)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, state.Settings())
}

func (s *server) updateSettings(c *call) error {
	// What is left out stays as it is: so it must be known what it is.
	if err := s.catchUp(c); err != nil {
		return err
	}
	settings := s.Replica.State().Settings()
	settings.Deadlines = maps.Clone(settings.Deadlines)
	if err := c.decodeJSON(&settings); err != nil {
		return err
	}
	for phase := range settings.Deadlines {
		if phase.Order() < 0 {
			names := make([]string, len(fsm.Phases))
			for i, p := range fsm.Phases {
				names[i] = string(p)
			}
			return unknown("phase", string(phase), "deadlines."+string(phase), names)
		}
	}
	if err := settings.Validate(); err != nil {
		return err
	}
	if _, err := s.propose(c, fsm.SettingsPut{Settings: settings}, c.changes); err != nil {
		return err
	}
	return c.reply(http.StatusOK, s.Replica.State().Settings())
}
