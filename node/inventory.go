package node

import (
	"context"
	"encoding/json"
	"net/http"

	"kontiki/agent"
	"kontiki/api"
	"kontiki/cluster"
	"kontiki/errs"
	"kontiki/reconcile"
)

// serveInventory tells the leader what this node has of what it is to serve. Any node may ask.
func (n *Node) serveInventory(w http.ResponseWriter, r *http.Request) {
	holdings, err := n.agent.Inventory(r.Context())
	if err != nil {
		http.Error(w, err.Error(), errs.Status(errs.CodeOf(err)))
		return
	}
	w.Header().Set("Content-Type", api.ContentTypeJSON)
	_ = json.NewEncoder(w).Encode(holdings) // the asker is gone when this fails
}

// inventoryOf asks a node, which may be this one, what it has; whatever goes wrong is an error and no empty answer.
func (n *Node) inventoryOf(ctx context.Context, id string) ([]reconcile.Holding, error) {
	holdings, err := n.holdings(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]reconcile.Holding, 0, len(holdings))
	for _, h := range holdings {
		out = append(out, reconcile.Holding(h))
	}
	return out, nil
}

func (n *Node) holdings(ctx context.Context, id string) (out []agent.Holding, err error) {
	if id == n.ID() {
		return n.agent.Inventory(ctx)
	}
	peer := n.fsm.State().Node(id)
	if peer == nil {
		return nil, errs.New(errs.NotFound, "node %q is no member any more", id)
	}
	err = n.fetch(ctx, cluster.Member{ID: id, Addr: peer.ClusterAddr}, "/inventory", &out)
	return out, err
}
