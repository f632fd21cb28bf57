package httpapi

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"kontiki/api"
	"kontiki/errs"
)

const roleAdmin = "admin"

// admit lets a request in: its query is known, it comes from no foreign page and its token is good.
func (s *server) admit(c *call) error {
	if err := c.parseQuery(); err != nil {
		return err
	}
	if c.Request.Method != http.MethodGet && c.Request.Method != http.MethodHead {
		if err := s.origin.Check(c.Request); err != nil {
			return errs.New(errs.Forbidden, "a page of another origin cannot change anything here").
				WithHint("call the API from the command line or from its own pages")
		}
	}
	if c.route.open {
		return nil
	}
	return s.authorise(c)
}

// authorise finds the token that the request carries.
func (s *server) authorise(c *call) error {
	scheme, secret, _ := strings.Cut(c.Request.Header.Get("Authorization"), " ")
	if secret = strings.TrimSpace(secret); !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return unauthorised("the request carries no token")
	}
	c.hash = sha256.Sum256([]byte(secret))
	c.state = s.Replica.State()
	c.token = c.state.TokenByHash(c.hash[:])
	if c.token == nil && c.Request.Header.Get(api.HeaderMinIndex) != "" {
		// The token may be newer than what this node has applied.
		if err := s.waitForMinIndex(c); err != nil {
			return err
		}
		c.state = s.Replica.State()
		c.token = c.state.TokenByHash(c.hash[:])
	}
	if c.token == nil {
		if err := s.lookAgain(c); err != nil {
			return err
		}
	}
	switch {
	case c.token.RevokedAt != 0:
		return unauthorised("the token was revoked")
	case c.token.Role != roleAdmin:
		return errs.New(errs.Forbidden, "the token has the role %q, this needs the role %q", clip(c.token.Role), roleAdmin).
			WithHint("ask an administrator for a token with that role")
	}
	return nil
}

// lookAgain is for a token that was not found: a node that has just started or that is cut off may not know it yet, and
// must not say that it is none.
func (s *server) lookAgain(c *call) error {
	ready := s.Node.Ready() // before the state is looked at: what a ready node does not find is not there
	c.state = s.Replica.State()
	c.token = c.state.TokenByHash(c.hash[:])
	switch {
	case c.token != nil:
		return nil
	case ready != nil:
		return errs.New(errs.Unavailable, "this node cannot tell yet whether the token is good: %w", ready).
			WithHint("ask another node, or try again in a moment")
	}
	return unauthorised("the token is not known")
}

func unauthorised(why string) error {
	return errs.New(errs.Unauthorized, "%s", why).WithHint("send the header Authorization: Bearer <token>")
}

// stillGood reports whether the token of a long request has not been revoked since.
func (s *server) stillGood(c *call) bool {
	t := s.Replica.State().TokenByHash(c.hash[:])
	return t != nil && t.RevokedAt == 0
}
