package api

import "kontiki/fsm"

// ProjectCreate is the body of POST /api/projects.
type ProjectCreate struct {
	Name     string            `json:"name"`
	Domains  []string          `json:"domains,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// ProjectUpdate is the body of PATCH /api/projects/{project}: what is left out stays. Metadata is merged, an empty
// value removes its key.
type ProjectUpdate struct {
	Domains  *[]string         `json:"domains,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// TokenCreate is the body of POST /api/tokens.
type TokenCreate struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty"` // admin, which is the default
}

// TokenCreated answers it. Secret is shown this once.
type TokenCreated struct {
	Token  fsm.Token `json:"token"`
	Secret string    `json:"secret"`
}

// JoinTokenCreate is the body of POST /api/cluster/join-tokens.
type JoinTokenCreate struct {
	TTL fsm.Millis `json:"ttl,omitempty"` // from 1m to 168h, 1h when left out
}

// JoinTokenCreated answers it. Token is shown this once.
type JoinTokenCreated struct {
	Token     string   `json:"token"`
	ExpiresAt fsm.Time `json:"expires_at"`
}

// JoinRequest is the body of POST /api/cluster/join.
type JoinRequest struct {
	Token string   `json:"token"` // as kontiki token join shows it
	Node  JoinNode `json:"node"`
	CSR   []byte   `json:"csr"` // certificate request, DER; base64 in JSON
}

// JoinNode is the joiner's account of itself; addresses are host:port as the others reach it.
type JoinNode struct {
	ID          string `json:"id"`
	ClusterAddr string `json:"cluster_addr"`
	APIAddr     string `json:"api_addr"`
	IngressAddr string `json:"ingress_addr"`
	Engine      string `json:"engine,omitempty"`
	Version     string `json:"version,omitempty"`
	Incarnation string `json:"incarnation,omitempty"`
}

// JoinAnswer admits a node: what it needs to start. It carries the cluster's key and is never logged.
type JoinAnswer struct {
	ClusterID   string     `json:"cluster_id"`
	Certificate []byte     `json:"certificate"` // the node's own, PEM; base64 in JSON
	CACert      []byte     `json:"ca_cert"`     // PEM
	CAKey       []byte     `json:"ca_key"`      // PEM: every node can admit others
	Nodes       []fsm.Node `json:"nodes"`       // the members, the new one among them
}
