package fsm

import (
	"bytes"

	"kontiki/errs"
)

// TokenCreate adds an API token.
type TokenCreate struct {
	Token Token `cbor:"token"`
}

// Kind implements Body.
func (TokenCreate) Kind() Kind { return "token.create" }

// TokenRevoke ends an API token for good.
type TokenRevoke struct {
	ID string `cbor:"id"`
}

// Kind implements Body.
func (TokenRevoke) Kind() Kind { return "token.revoke" }

// JoinTokenCreate adds a token that admits one node.
type JoinTokenCreate struct {
	ID        string `cbor:"id"` // hex SHA-256 of the secret
	ExpiresAt Time   `cbor:"expires_at"`
}

// Kind implements Body.
func (JoinTokenCreate) Kind() Kind { return "join_token.create" }

func init() {
	register(true, applyTokenCreate, func(b TokenCreate) string { return b.Token.Name })
	register(true, applyTokenRevoke, func(b TokenRevoke) string { return b.ID })
	register(true, applyJoinTokenCreate, func(b JoinTokenCreate) string { return b.ID })
}

func applyTokenCreate(t *tx, _ Command, b TokenCreate) (any, error) {
	tok := b.Token
	if tok.ID == "" || len(tok.Hash) == 0 {
		return nil, errs.New(errs.BadCommand, "a token needs an ID and a hash")
	}
	if err := CheckName("token", tok.Name); err != nil {
		return nil, err
	}
	for other := range t.state().Tokens() {
		if other.ID == tok.ID || bytes.Equal(other.Hash, tok.Hash) || other.Name == tok.Name && other.RevokedAt == 0 {
			return nil, errs.New(errs.Exists, "a token %q exists", tok.Name).WithField("name").WithHint("choose another name or revoke that one")
		}
	}
	tok.CreatedAt, tok.Indexes = t.now, Indexes{}
	put(t, tableTokens, &tok, &tok.Indexes)
	return nil, nil
}

func applyTokenRevoke(t *tx, _ Command, b TokenRevoke) (any, error) {
	tok := get[Token](t.state(), tableTokens, byID, b.ID)
	if tok == nil {
		return nil, notFound("token", b.ID)
	}
	if tok.RevokedAt != 0 {
		return nil, nil
	}
	left := 0
	for other := range t.state().Tokens() {
		if other.RevokedAt == 0 && other.ID != tok.ID {
			left++
		}
	}
	if left == 0 {
		return nil, errs.New(errs.Conflict, "%q is the last token", tok.Name).WithHint("create another one first, or nobody could use the API")
	}
	c := *tok
	c.RevokedAt = t.now
	put(t, tableTokens, &c, &c.Indexes)
	return nil, nil
}

func applyJoinTokenCreate(t *tx, _ Command, b JoinTokenCreate) (any, error) {
	if len(b.ID) != 64 {
		return nil, errs.New(errs.BadCommand, "a join token's ID is the hex SHA-256 of its secret")
	}
	if t.state().JoinToken(b.ID) != nil {
		return nil, errs.New(errs.Exists, "the join token is there already").WithHint("make another one")
	}
	for _, old := range collect(all[JoinToken](t.state(), tableJoinTokens)) {
		if old.ExpiresAt < t.now {
			drop(t, tableJoinTokens, old.ID, old)
		}
	}
	j := &JoinToken{ID: b.ID, ExpiresAt: b.ExpiresAt, CreatedAt: t.now}
	put(t, tableJoinTokens, j, &j.Indexes)
	return nil, nil
}
