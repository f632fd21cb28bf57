package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

// secretPrefix begins every API token, whoever made it, so that one can be told from other secrets.
const secretPrefix = "kt_"

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
	secret = secretPrefix + secret
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

// settingsRounds is how many changes of others, made between reading and committing, one change of settings gets over.
const settingsRounds = 16

// updateSettings changes what the body names. What it leaves out stays as it is, also when others change that at the
// same time: settings are committed only on top of those they were made from, else they are made anew. Each round has a
// command ID of its own, so a repetition under the same key goes through the same rounds to the same answer.
func (s *server) updateSettings(c *call) error {
	if err := s.catchUp(c); err != nil {
		return err
	}
	var changes fsm.Settings
	if err := c.decodeJSON(&changes); err != nil {
		return err
	}
	if err := checkPhases(changes.Deadlines); err != nil {
		return err
	}
	for {
		result, err := s.putSettings(c)
		if errs.CodeOf(err) == errs.Conflict && c.round+1 < settingsRounds {
			c.round++
			c.Writer.Header().Del(api.HeaderReplayed)
			continue
		}
		if err != nil {
			return err
		}
		var made fsm.Settings
		if err := result.Decode(&made); err != nil {
			return errs.New(errs.Internal, "read the settings that were made: %w", err)
		}
		return c.reply(http.StatusOK, made)
	}
}

// putSettings proposes the settings this node knows with what the body changes in them.
func (s *server) putSettings(c *call) (fsm.Result, error) {
	cluster := s.Replica.State().Cluster()
	if cluster == nil {
		return fsm.Result{}, errs.New(errs.NotFound, "there is no cluster yet").WithHint("make one with: kontiki init")
	}
	settings := cluster.Settings
	settings.Deadlines = maps.Clone(settings.Deadlines)
	if err := json.Unmarshal(c.doc, &settings); err != nil {
		return fsm.Result{}, errs.New(errs.InvalidJSON, "the body cannot be used: %w", err)
	}
	if err := settings.Validate(); err != nil {
		return fsm.Result{}, err
	}
	return s.propose(c, fsm.SettingsPut{From: cluster.ModifyIndex, Settings: settings}, c.changes)
}

// checkPhases refuses deadlines of what is no phase.
func checkPhases(deadlines map[fsm.Phase]fsm.Millis) error {
	for phase := range deadlines {
		if phase.Order() < 0 {
			names := make([]string, len(fsm.Phases))
			for i, p := range fsm.Phases {
				names[i] = string(p)
			}
			return unknown("phase", string(phase), "deadlines."+string(phase), names)
		}
	}
	return nil
}
