package client

import (
	"context"
	"net/http"
	"net/url"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

// Version says what answers.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return get[api.Version](ctx, c, "/api/version", nil)
}

// Ready reports whether a node knows a leader and has caught up: nil, or why not. Unlike other calls it asks once.
func (c *Client) Ready(ctx context.Context) error {
	a, err := c.attempt(ctx, call{method: http.MethodGet, path: "/readyz"}, c.nodes[0])
	if err != nil {
		return errs.From(err)
	}
	a.close()
	return nil
}

// Status says how the cluster is, as one node sees it.
func (c *Client) Status(ctx context.Context) (api.ClusterStatus, error) {
	return get[api.ClusterStatus](ctx, c, "/api/cluster", nil)
}

// Peers lists the nodes by ID.
func (c *Client) Peers(ctx context.Context) (api.Page[api.Peer], error) {
	return get[api.Page[api.Peer]](ctx, c, "/api/cluster/peers", nil)
}

// RemovePeer takes a node out of the cluster for good.
func (c *Client) RemovePeer(ctx context.Context, id string) error {
	return c.remove(ctx, "/api/cluster/peers/"+url.PathEscape(id))
}

// Hashes compares the nodes' states at one log index.
func (c *Client) Hashes(ctx context.Context) (api.Hashes, error) {
	return get[api.Hashes](ctx, c, "/api/cluster/hashes", nil)
}

// Join asks to be admitted; the request's join token authorises it. It goes to the nodes as any other request: the
// first node that admits answers.
func (c *Client) Join(ctx context.Context, r api.JoinRequest) (api.JoinAnswer, error) {
	return send[api.JoinAnswer](ctx, c, http.MethodPost, "/api/cluster/join", r)
}

// CreateJoinToken makes a token that admits one node within ttl (0 for the default, 1 h).
func (c *Client) CreateJoinToken(ctx context.Context, ttl fsm.Millis) (api.JoinTokenCreated, error) {
	in := map[string]any{}
	if ttl != 0 {
		in["ttl"] = ttl
	}
	return send[api.JoinTokenCreated](ctx, c, http.MethodPost, "/api/cluster/join-tokens", in)
}

// Tokens lists the API tokens, revoked ones too.
func (c *Client) Tokens(ctx context.Context, l List) (api.Page[fsm.Token], error) {
	return get[api.Page[fsm.Token]](ctx, c, "/api/tokens", l.values())
}

// CreateToken makes an API token; the answer is the only place its secret is shown.
func (c *Client) CreateToken(ctx context.Context, t api.TokenCreate) (api.TokenCreated, error) {
	return send[api.TokenCreated](ctx, c, http.MethodPost, "/api/tokens", t)
}

// RevokeToken ends an API token for good.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.remove(ctx, "/api/tokens/"+url.PathEscape(id))
}

// Settings gets the cluster's settings.
func (c *Client) Settings(ctx context.Context) (fsm.Settings, error) {
	return get[fsm.Settings](ctx, c, "/api/cluster/settings", nil)
}

// UpdateSettings changes some settings, by their JSON names, and gives all of them.
func (c *Client) UpdateSettings(ctx context.Context, changes map[string]any) (fsm.Settings, error) {
	return send[fsm.Settings](ctx, c, http.MethodPatch, "/api/cluster/settings", changes)
}

// RepairFilter chooses repairs; empty fields choose all.
type RepairFilter struct {
	Node  string
	State fsm.StepState
	List
}

// Repairs lists repairs.
func (c *Client) Repairs(ctx context.Context, f RepairFilter) (api.Page[fsm.Repair], error) {
	v := f.values()
	setIf(v, "node", f.Node)
	setIf(v, "state", string(f.State))
	return get[api.Page[fsm.Repair]](ctx, c, "/api/repairs", v)
}

// Audit lists what users changed, newest first.
func (c *Client) Audit(ctx context.Context, l List) (api.Page[fsm.Audit], error) {
	return get[api.Page[fsm.Audit]](ctx, c, "/api/audit", l.values())
}
