package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

// propose commits what the request asks for and waits until this node has applied it. content is what the request
// brought, for telling a repetition from another request under the same key; nil for nothing. The error is the
// command's own when it was refused.
func (s *server) propose(c *call, body fsm.Body, content any) (fsm.Result, error) {
	cmd := fsm.NewCommand(body, c.token.Name)
	key, err := c.idempotencyKey()
	if err != nil {
		return fsm.Result{}, err
	}
	if key != "" {
		if cmd.Request, err = c.fingerprint(content); err != nil {
			return fsm.Result{}, err
		}
		sum := sha256.Sum256([]byte(c.token.ID + ":" + key)) // of one length, whatever the key's
		cmd.ID = "k:" + hex.EncodeToString(sum[:])
		if c.round > 0 {
			cmd.ID += "#" + strconv.Itoa(c.round)
		}
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), waitForWrite)
	defer cancel()
	result, err := s.Replica.Propose(ctx, cmd)
	if err != nil {
		return fsm.Result{}, err
	}
	if result.Replayed {
		c.Writer.Header()[api.HeaderReplayed] = []string{"true"}
	}
	if err := s.Replica.Wait(ctx, result.Index); err != nil {
		return fsm.Result{}, errs.New(errs.Timeout, "the change is committed, but this node has not applied it yet: %w", err).
			WithHint("ask another node, or try again under the same Idempotency-Key")
	}
	s.stamp(c, result.Index)
	if result.Err != nil {
		return result, result.Err
	}
	return result, nil
}

// idempotencyKey gives the request's key, "" when it has none.
func (c *call) idempotencyKey() (string, error) {
	values := c.Request.Header.Values(api.HeaderKey)
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	ok := len(values) == 1 && len(key) >= 1 && len(key) <= 100
	for i := range len(key) {
		ok = ok && key[i] > ' ' && key[i] <= '~'
	}
	if !ok {
		return "", errs.New(errs.Invalid, "the %s is not acceptable", api.HeaderKey).WithField(api.HeaderKey).
			WithHint("send one, of 1 to 100 printable ASCII characters without spaces")
	}
	return key, nil
}

// fingerprint tells this request from another one: its method, path, query and content.
func (c *call) fingerprint(content any) ([]byte, error) {
	names := make([]string, 0, len(c.query))
	for name := range c.query {
		names = append(names, name)
	}
	slices.Sort(names)
	parts := []string{c.Request.Method, c.Request.URL.Path}
	for _, name := range names {
		parts = append(parts, name, c.query[name])
	}
	b, err := json.Marshal([]any{parts, content})
	if err != nil {
		return nil, errs.New(errs.Internal, "fingerprint the request: %w", err)
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// newSecret makes the secret of a new token. Under an idempotency key it depends on nothing but the key and the
// caller's own secret, so the request can be repeated and gives the same answer, though the secret is stored nowhere.
func (s *server) newSecret(c *call, purpose string) (string, error) {
	key, err := c.idempotencyKey()
	if err != nil {
		return "", err
	}
	if key == "" {
		return rand.Text() + rand.Text(), nil
	}
	_, own, _ := strings.Cut(c.Request.Header.Get("Authorization"), " ")
	mac := hmac.New(sha256.New, []byte(strings.TrimSpace(own)))
	_, _ = mac.Write([]byte("kontiki " + purpose + "\x00" + key)) // never fails
	return hex.EncodeToString(mac.Sum(nil)), nil
}
