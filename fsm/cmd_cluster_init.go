package fsm

import "kontiki/errs"

// ClusterInit makes the cluster: the first command of every log.
type ClusterInit struct {
	ID       string   `cbor:"id"`
	Settings Settings `cbor:"settings"`
	Node     Node     `cbor:"node"`
	Token    Token    `cbor:"token"` // the first admin's
}

// Kind implements Body.
func (ClusterInit) Kind() Kind { return "cluster.init" }

func init() { register(true, applyClusterInit, func(b ClusterInit) string { return b.ID }) }

func applyClusterInit(t *tx, _ Command, b ClusterInit) (any, error) {
	if c := t.state().Cluster(); c != nil {
		return nil, errs.New(errs.Exists, "the cluster %s is there already", c.ID)
	}
	if b.ID == "" || len(b.Token.Hash) == 0 {
		return nil, errs.New(errs.BadCommand, "a cluster needs an ID and a first token")
	}
	if err := CheckName("node", b.Node.ID); err != nil {
		return nil, err
	}
	if err := b.Settings.Validate(); err != nil {
		return nil, err
	}
	c := &Cluster{ID: b.ID, CreatedAt: t.now, Settings: b.Settings}
	put(t, tableCluster, c, &c.Indexes)
	n := b.Node
	n.State, n.StateAt, n.JoinedAt, n.Indexes = NodeReady, t.now, t.now, Indexes{}
	put(t, tableNodes, &n, &n.Indexes)
	tok := b.Token
	tok.CreatedAt, tok.Indexes = t.now, Indexes{}
	put(t, tableTokens, &tok, &tok.Indexes)
	return nil, nil
}
