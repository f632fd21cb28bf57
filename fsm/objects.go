package fsm

import "slices"

// Project is one site or service, known by its name.
type Project struct {
	Name       string            `json:"name"`
	Domains    []string          `json:"domains,omitempty"`  // further hosts, sorted
	Metadata   map[string]string `json:"metadata,omitempty"` // the user's own
	Active     string            `json:"active,omitempty"`   // ID of the deployment that serves
	NextNumber uint64            `json:"next_number"`
	CreatedAt  Time              `json:"created_at"`
	UpdatedAt  Time              `json:"updated_at"`
	Indexes
}

// Cluster is what the whole group has in common.
type Cluster struct {
	ID        string   `json:"id"`
	CreatedAt Time     `json:"created_at"`
	Settings  Settings `json:"settings"`
	Indexes
}

// Settings steer the leader's judgement; they are part of the state so that every leader judges alike.
type Settings struct {
	BaseDomain   string           `json:"base_domain"`
	NodeLost     Millis           `json:"node_lost"`     // without contact for this long a node's replicas are placed elsewhere
	NodeAway     Millis           `json:"node_away"`     // without contact for this long a running deployment goes on without a node
	Stuck        Millis           `json:"stuck"`         // without heartbeat or progress for this long a deployment is stuck
	MaxAttempts  int              `json:"max_attempts"`  // tries of a step before the deployment fails
	RetryBackoff Millis           `json:"retry_backoff"` // before the second try; doubles each time
	Builds       int              `json:"builds"`        // deployments one node builds at a time
	Queue        string           `json:"queue"`         // "latest": a newer queued deployment replaces older ones; "all": each runs
	Keep         int              `json:"keep"`          // releases that worked which are kept per project
	Deadlines    map[Phase]Millis `json:"deadlines"`     // per phase
}

// DefaultSettings are those of a fresh cluster.
func DefaultSettings() Settings {
	return Settings{BaseDomain: "kontiki.localhost", NodeLost: 30_000, NodeAway: 3_000, Stuck: 300_000, MaxAttempts: 5,
		RetryBackoff: 500, Builds: 16, Queue: "latest", Keep: 5,
		Deadlines: map[Phase]Millis{PhasePullingSource: 600_000, PhaseBuilding: 1_800_000, PhaseCopyingFiles: 600_000,
			PhaseCreatingSymlinks: 60_000, PhaseUpdatingRoutes: 60_000, PhaseHealthCheck: 300_000}}
}

// NodeState is what the leader holds of a node.
type NodeState string

// The node states.
const (
	NodeReady NodeState = "ready"
	NodeAway  NodeState = "away" // out of contact for a moment: gets no new work
	NodeLost  NodeState = "lost" // out of contact for long: its replicas are placed elsewhere
	// NodeLeaving is removed as soon as nothing is served by it alone: until then it serves, and gets no new work.
	NodeLeaving NodeState = "leaving"
)

// Node is a member of the cluster.
type Node struct {
	ID          string    `json:"id"`
	ClusterAddr string    `json:"cluster_addr"` // host:port for Raft and the other nodes
	APIAddr     string    `json:"api_addr"`     // host:port for users
	IngressAddr string    `json:"ingress_addr"` // host:port for the users of what is deployed
	Engine      string    `json:"engine,omitempty"`
	Version     string    `json:"version,omitempty"`
	Incarnation string    `json:"incarnation,omitempty"` // changes with the data directory
	State       NodeState `json:"state"`
	Reason      string    `json:"reason,omitempty"` // why State is what it is
	StateAt     Time      `json:"state_at"`
	JoinedAt    Time      `json:"joined_at"`
	Indexes
}

// RemovedNode keeps the ID of a node that is gone for good: it is never accepted again.
type RemovedNode struct {
	ID string `json:"id"`
	At Time   `json:"at"`
	Indexes
}

// Token lets somebody use the API. The secret itself is stored nowhere.
type Token struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Role      string `json:"role"` // admin
	Hash      []byte `json:"-" cbor:"hash"`
	CreatedAt Time   `json:"created_at"`
	RevokedAt Time   `json:"revoked_at,omitzero"`
	Indexes
}

// JoinToken admits one node, once.
type JoinToken struct {
	ID        string `json:"id"` // hex of the secret's SHA-256
	ExpiresAt Time   `json:"expires_at"`
	UsedBy    string `json:"used_by,omitempty"` // node ID
	Settled   bool   `json:"settled,omitempty"` // that node has been in contact: the token is good for nothing any more
	CreatedAt Time   `json:"created_at"`
	Indexes
}

// Blob says which nodes hold a content-addressed file.
type Blob struct {
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`  // bytes
	Nodes     []string `json:"nodes"` // sorted
	CreatedAt Time     `json:"created_at"`
	Indexes
}

// RepairKind is what a repair does.
type RepairKind string

// The repairs.
const (
	RepairPlace     RepairKind = "place"      // make the node serve the project's active deployment
	RepairCleanup   RepairKind = "cleanup"    // remove what the node has of a deployment
	RepairForget    RepairKind = "forget"     // remove what the node has of a deleted project
	RepairFetchBlob RepairKind = "fetch_blob" // hold a copy of a blob
	RepairDropBlob  RepairKind = "drop_blob"  // remove a blob that nothing references
)

// Repair is an order to one node outside a deployment's phases. It is committed before anything is done, and reported
// after.
type Repair struct {
	ID         string     `json:"id"`
	Kind       RepairKind `json:"kind"`
	Node       string     `json:"node"`
	Project    string     `json:"project,omitempty"`
	Deployment string     `json:"deployment,omitempty"`
	Digest     string     `json:"digest,omitempty"`
	Reason     string     `json:"reason"`
	State      StepState  `json:"state"` // pending, done or failed
	Attempt    int        `json:"attempt"`
	Outcome
	Indexes
}

// Outcome is how and when a repair went.
type Outcome struct {
	OrderedAt  Time   `json:"ordered_at"`
	FinishedAt Time   `json:"finished_at,omitzero"`
	Message    string `json:"message,omitempty"`
}

// Audit is one user-made change.
type Audit struct {
	Index   uint64 `json:"index"`
	At      Time   `json:"at"`
	Actor   string `json:"actor"`
	Action  Kind   `json:"action"`
	Object  string `json:"object,omitempty"`
	Refused string `json:"refused,omitempty"` // the error's code when nothing changed
}

// Tombstone says that an object was removed, so that a mirror can follow.
type Tombstone struct {
	Table string `json:"table"`
	Key   string `json:"key"`
	Indexes
}

// with gives the sorted set with s in it; without gives it without s. Neither changes its argument.
func with(set []string, s string) []string {
	i, found := slices.BinarySearch(set, s)
	if found {
		return set
	}
	return slices.Insert(slices.Clone(set), i, s)
}

func without(set []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(set), func(x string) bool { return x == s })
}

// Majority is how many of n nodes must hold a blob before it counts as stored: more than half, and all of fewer than 3.
func Majority(n int) int {
	if n < 3 {
		return n
	}
	return n/2 + 1
}
