package api

import "kontiki/fsm"

// Version answers GET /api/version.
type Version struct {
	Version string `json:"version"`
	Node    string `json:"node"` // ID of the node that answers
	Cluster string `json:"cluster"`
	Go      string `json:"go"`
}

// Health answers GET /healthz and GET /readyz.
type Health struct {
	Status string `json:"status"` // ok
	Node   string `json:"node"`
}

// The roles of a node in the Raft group.
const (
	RoleLeader   = "leader"
	RoleFollower = "follower" // votes
	RoleLearner  = "learner"  // gets the log, does not vote (yet)
)

// Peer is a node and how it stands in the Raft group.
type Peer struct {
	fsm.Node
	Role       string `json:"role"`
	MatchIndex uint64 `json:"match_index"` // the last log index it is known to have
	Lag        uint64 `json:"lag"`         // entries behind the leader
	Reachable  bool   `json:"reachable"`   // from the node that answers
}

// ClusterStatus answers GET /api/cluster.
type ClusterStatus struct {
	ID      string `json:"id"`
	Node    string `json:"node"` // ID of the node that answers
	Leader  string `json:"leader,omitempty"`
	Term    uint64 `json:"term"`
	Applied uint64 `json:"applied_index"` // on the node that answers
	Commit  uint64 `json:"commit_index"`
	Peers   []Peer `json:"peers"` // sorted by ID
}

// Hashes answers GET /api/cluster/hashes: what each node's state was at one log index.
type Hashes struct {
	Index  uint64            `json:"index"`
	Equal  bool              `json:"equal"`            // all nodes answered, and with the same hash
	Hashes map[string]string `json:"hashes"`           // node ID to hex
	Errors map[string]string `json:"errors,omitempty"` // node ID to why it has no hash
}

// Plan answers GET /api/projects/{project}/plan: what a deployment would do if it were made now.
type Plan struct {
	Project       string           `json:"project"`
	CreateProject bool             `json:"create_project"`
	Number        uint64           `json:"number"`
	Replicas      fsm.Replicas     `json:"replicas"`
	Nodes         []string         `json:"nodes"` // where it would run, sorted
	Host          string           `json:"host"`  // under which ingress serves the project
	Replaces      *PlanDeployment  `json:"replaces,omitempty"`
	Waits         []PlanDeployment `json:"waits,omitempty"`   // runs now: the new one waits for it
	Cancels       []PlanDeployment `json:"cancels,omitempty"` // queued ones the new one would replace
}

// PlanDeployment names a deployment in a plan.
type PlanDeployment struct {
	ID     string     `json:"id"`
	Number uint64     `json:"number"`
	Label  string     `json:"label,omitempty"`
	Status fsm.Status `json:"status"`
	Nodes  []string   `json:"nodes,omitempty"`
}

// LogLine is one line of a step's log.
type LogLine struct {
	At      fsm.Time  `json:"at"`
	Node    string    `json:"node"`
	Phase   fsm.Phase `json:"phase"`
	Attempt int       `json:"attempt"`
	Line    string    `json:"line"`
}

// Logs answers GET /api/deployments/{id}/logs, oldest line first.
type Logs struct {
	Deployment string    `json:"deployment"`
	Lines      []LogLine `json:"lines"`
}

// EventType is the kind of a streamed message; it is the event name in the stream.
type EventType string

// The messages of a stream.
const (
	EventLine     EventType = "event"    // a new line of the timeline, in Event
	EventProgress EventType = "progress" // phase or progress have changed
	EventEnd      EventType = "end"      // the deployment has come to its end; its own stream closes after it
)

// Event is one message of a stream of events. Its place in the log, where a stream resumes, is Index.
type Event struct {
	Type       EventType `json:"type"`
	Index      uint64    `json:"index"`
	Project    string    `json:"project"`
	Deployment string    `json:"deployment"`
	Number     uint64    `json:"number"`
	EventState
	Event   *fsm.Event   `json:"event,omitempty"`   // of an EventLine
	Failure *fsm.Failure `json:"failure,omitempty"` // of an EventEnd
}

// EventState is where the deployment is: phase, progress and attempt of a line are those of the line, all else is as
// of when the message was sent.
type EventState struct {
	Status        fsm.Status        `json:"status,omitempty"` // empty in the end of a deployment that was deleted
	Phase         fsm.Phase         `json:"phase,omitempty"`
	PhaseProgress int               `json:"phase_progress"` // per cent, 0 to 100
	PhaseMetadata map[string]string `json:"phase_metadata,omitempty"`
	Attempt       int               `json:"attempt,omitempty"`
}
