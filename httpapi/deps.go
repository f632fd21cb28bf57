package httpapi

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"kontiki/api"
	"kontiki/fsm"
)

// Replica is the node's replica of the state, and the way to change it.
type Replica interface {
	// State gives a view of what is committed here.
	State() *fsm.State
	// Changed gives a channel that is closed when the next entry has been applied.
	Changed() <-chan struct{}
	// Wait returns when the entry at index has been applied here, or with the context's error.
	Wait(ctx context.Context, index uint64) error
	// Propose commits a command through the leader, whichever node that is. An error means that the outcome is not
	// known or that there is no leader (errs.NoLeader); a refused command is a Result with Err.
	Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error)
	// ReadIndex gives an index at which everything acknowledged before the call is applied; errs.NoLeader.
	ReadIndex(ctx context.Context) (uint64, error)
}

// Stored is an upload that a majority of the nodes has.
type Stored struct {
	Digest string // sha256:<hex>
	Size   int64
	Nodes  []string // those that have it
}

// Uploads takes what users upload.
type Uploads interface {
	// StoreUpload returns when the content is on a majority of the nodes; errs.TooLarge over limit bytes.
	StoreUpload(ctx context.Context, body io.Reader, limit int64) (Stored, error)
	// CheckHead refuses content that cannot be an archive by its first HeadSize bytes, or fewer when that is all there
	// are; errs.InvalidArchive. What it lets pass DetectFormat may still refuse.
	CheckHead(head []byte, contentType string) error
	// DetectFormat tells the format of a stored archive; errs.InvalidArchive when it is none.
	DetectFormat(ctx context.Context, digest, contentType string) (string, error)
}

// Members is the Raft group.
type Members interface {
	// Admit takes in a node with a join token; errs.JoinToken, errs.RemovedPeer, errs.IdentityMismatch.
	Admit(ctx context.Context, r api.JoinRequest) (api.JoinAnswer, error)
	// CheckRemoval refuses the removal of a node that the group could not do without; errs.QuorumLoss.
	CheckRemoval(id string) error
	// Status says how the nodes stand in the group.
	Status(ctx context.Context) (api.ClusterStatus, error)
	// Hashes gives the nodes' state hashes at one index.
	Hashes(ctx context.Context) (api.Hashes, error)
}

// Logs gives what the steps of a deployment have written, of all nodes, oldest line first.
type Logs interface {
	Logs(ctx context.Context, deployment string) ([]api.LogLine, error)
}

// Node is the node that answers.
type Node interface {
	ID() string
	Version() string
	// Ready says why the node should get no requests: nil when it knows a leader and has caught up.
	Ready() error
	// Leader gives the ID of the leader as this node knows it ("" for none) and how long ago it heard of one.
	Leader() (id string, ago time.Duration)
	// Audit gives the newest n audit records, newest first.
	Audit(n int) []fsm.Audit
}

// Deps is what the API is made of.
type Deps struct {
	Replica Replica
	Uploads Uploads
	Members Members
	Logs    Logs
	Node    Node
	// Place says which nodes a new deployment of the project would run on, sorted.
	Place func(s *fsm.State, project string, replicas fsm.Replicas) []string
	// JoinToken puts a secret into the form that a joiner is given.
	JoinToken func(secret string) string
	// MaxUpload is the most bytes of an archive; 0 means 512 MiB.
	MaxUpload int64
	// MaxUploads is the most uploads at a time; 0 means 128.
	MaxUploads int
	// MaxStreams is the most streams of events at a time; 0 means 1000.
	MaxStreams int
	// Heartbeat is the pause after which a silent stream shows that it is alive; 0 means 15 s.
	Heartbeat time.Duration
	Logger    *slog.Logger
}

// The limits of a request.
const (
	defaultMaxUpload = 512 << 20
	// HeadSize is how many bytes of an upload are looked at before any of it is stored.
	HeadSize     = 512
	maxJSON      = 1 << 20
	waitForIndex = 5 * time.Second
	waitForWrite = 12 * time.Second
)

// New makes the API's handler.
func New(d Deps) http.Handler {
	if d.MaxUpload == 0 {
		d.MaxUpload = defaultMaxUpload
	}
	if d.MaxUploads == 0 {
		d.MaxUploads = 128
	}
	if d.MaxStreams == 0 {
		d.MaxStreams = 1000
	}
	if d.Heartbeat == 0 {
		d.Heartbeat = 15 * time.Second
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	s := &server{Deps: d, origin: http.NewCrossOriginProtection(), boot: newBootID(), nodeID: []string{d.Node.ID()}}
	return s.engine()
}
