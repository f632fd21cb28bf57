package fsm

import (
	"testing"

	"kontiki/errs"
)

func token(id, name string) Token {
	return Token{ID: id, Name: name, Role: "admin", Hash: []byte("hash of " + id)}
}

func TestTokenCreate(t *testing.T) {
	m := three(t)
	m.ok(TokenCreate{Token: token("t2", "ci")})
	if tok := m.state().TokenByHash([]byte("hash of t2")); tok == nil || tok.Name != "ci" || tok.CreateIndex != m.index {
		t.Errorf("token is %+v", tok)
	}
	if tok := m.state().TokenByHash([]byte("hash of")); tok != nil {
		t.Errorf("a part of a hash finds %+v", tok)
	}
	if got := ids(m.state().Tokens(), func(t *Token) string { return t.Name }); got != "root ci" {
		t.Errorf("tokens are %q", got)
	}
	m.refuse(errs.Exists, TokenCreate{Token: token("t2", "another")})
	m.refuse(errs.Exists, TokenCreate{Token: token("t3", "ci")})
	m.refuse(errs.Invalid, TokenCreate{Token: token("t3", "C I")})
	m.refuse(errs.BadCommand, TokenCreate{Token: Token{ID: "t3", Name: "ci2"}})
	m.refuse(errs.BadCommand, TokenCreate{Token: Token{Name: "ci2", Hash: []byte("x")}})
	same := token("t3", "ci2")
	same.Hash = []byte("hash of t2")
	m.refuse(errs.Exists, TokenCreate{Token: same})
}

func TestTokenRevoke(t *testing.T) {
	m := three(t)
	m.ok(TokenCreate{Token: token("t2", "ci")})
	m.ok(TokenRevoke{ID: "t2"})
	tok := m.state().TokenByHash([]byte("hash of t2"))
	if tok == nil || tok.RevokedAt != m.lastTime() {
		t.Fatalf("token is %+v", tok)
	}
	m.ok(TokenRevoke{ID: "t2"})
	if again := m.state().TokenByHash([]byte("hash of t2")); again != tok {
		t.Errorf("revoking again made %+v", again)
	}
	m.ok(TokenCreate{Token: token("t3", "ci")}) // the name is free again
	m.refuse(errs.NotFound, TokenRevoke{ID: "t9"})
}

func TestLastTokenCannotBeRevoked(t *testing.T) {
	m := three(t)
	m.refuse(errs.Conflict, TokenRevoke{ID: "t1"})
	m.ok(TokenCreate{Token: token("t2", "ci")})
	m.ok(TokenRevoke{ID: "t1"})
	m.refuse(errs.Conflict, TokenRevoke{ID: "t2"})
}

func TestJoinTokenCreate(t *testing.T) {
	m := three(t)
	m.ok(JoinTokenCreate{ID: secret("old"), ExpiresAt: m.lastTime() + 1500})
	m.ok(JoinTokenCreate{ID: secret("new"), ExpiresAt: 2_000_000_000})
	if m.state().JoinToken(secret("old")) != nil {
		t.Error("an expired join token is kept")
	}
	if m.state().JoinToken(secret("new")) == nil {
		t.Error("the join token is not there")
	}
	m.refuse(errs.BadCommand, JoinTokenCreate{ID: "short", ExpiresAt: 2_000_000_000})
}

// A join token that comes twice must not be made usable again.
func TestJoinTokenCreateTwice(t *testing.T) {
	m := three(t)
	m.refuse(errs.Exists, JoinTokenCreate{ID: secret("n2"), ExpiresAt: 2_000_000_000})
}
