package agent

import (
	"context"
	"io"
	"os"

	"kontiki/fsm"
)

// Replica is this node's view of the committed state.
type Replica interface {
	State() *fsm.State
	Changed() <-chan struct{}
}

// Proposer commits commands, through the leader wherever it is.
type Proposer interface {
	Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error)
}

// Blobs is the node's content-addressed store and its way to the other nodes'.
type Blobs interface {
	// Ensure makes the blob present here, fetched from another node if need be. Nobody has it: errs.BlobMissing.
	Ensure(ctx context.Context, digest string) error
	// Open gives a blob that is present; absent: errs.NotFound.
	Open(digest string) (*os.File, error)
	// Put stores what r gives on this node and on others until a majority has it, and says who has.
	Put(ctx context.Context, r io.Reader) (fsm.Held, error)
	// Drop removes the blob here; absent is success.
	Drop(ctx context.Context, digest string) error
}

// Sites prepares and keeps static releases on this node's disk.
type Sites interface {
	// Manifest reads an archive of the given format and says what a release of it holds, as the bytes to store.
	Manifest(ctx context.Context, archive *os.File, format string) (Manifest, error)
	// EnsureRelease makes the release's directory complete and durable, from the archive as the manifest says.
	EnsureRelease(ctx context.Context, d *fsm.Deployment, archive, manifest *os.File) error
	// EnsureWebroot makes the project's webroot link.
	EnsureWebroot(ctx context.Context, project string) error
	// EnsureCurrent makes the project's current link name the deployment, atomically.
	EnsureCurrent(ctx context.Context, project, deployment string) error
	// Prune removes the project's releases that keep refuses, and with the last one all of the project.
	Prune(ctx context.Context, project string, keep func(deployment string) bool) error
}

// Manifest is what Sites.Manifest found.
type Manifest struct {
	Encoded []byte
	Files   int
	Bytes   int64
}

// Engine runs what serves releases on this node.
type Engine interface {
	// EnsureServer makes the project's server run and gives where this node reaches it, for people to see.
	EnsureServer(ctx context.Context, project string, health fsm.Health) (endpoint string, err error)
	// RemoveServer removes the project's server; absent is success.
	RemoveServer(ctx context.Context, project string) error
	// Working tells which projects' servers run and are not ill. An error says nothing about them.
	Working(ctx context.Context) (func(project string) bool, error)
}

// Prober looks at a release the way its users do.
type Prober interface {
	// Routed reports that this node's ingress leads the release's own host here; errs.Unhealthy when it does not.
	Routed(ctx context.Context, d *fsm.Deployment) error
	// Probe makes one health check of the release on this node; errs.Unhealthy when it does not pass.
	Probe(ctx context.Context, d *fsm.Deployment) error
}

// Logs keeps what is written about each step.
type Logs interface {
	// Create opens the log of one attempt of a phase for appending.
	Create(deployment string, phase fsm.Phase, attempt int) (io.WriteCloser, error)
}
