package node

import (
	"context"
	"io"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/httpapi"
	"kontiki/source"
)

// replica is the state and the way to change it, as the API sees them.
type replica struct {
	*fsm.FSM
	n *Node
}

func (r replica) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	return r.n.cluster.Propose(ctx, cmd)
}

func (r replica) ReadIndex(ctx context.Context) (uint64, error) { return r.n.cluster.ReadIndex(ctx) }

// StoreUpload keeps an uploaded archive here and on others, and returns when a majority has it.
func (n *Node) StoreUpload(ctx context.Context, body io.Reader, limit int64) (httpapi.Stored, error) {
	held, err := n.blobs.keep(ctx, body, limit)
	return httpapi.Stored{Digest: held.Digest, Size: held.Size, Nodes: held.Nodes}, err
}

// CheckHead refuses content that does not begin as an archive does.
func (n *Node) CheckHead(head []byte, contentType string) error {
	_, err := source.DetectHead(head, contentType)
	return err
}

// DetectFormat tells a stored archive's format by its first bytes.
func (n *Node) DetectFormat(_ context.Context, digest, contentType string) (string, error) {
	f, err := n.blobs.Open(digest)
	if err != nil {
		return "", err
	}
	defer f.Close()
	format, err := source.Detect(f, contentType)
	return string(format), err
}

// ID is the node's ID.
func (n *Node) ID() string { return n.identity.NodeID }

// Version is the version of the node's binary.
func (n *Node) Version() string { return Version }

// maxBehind is how many log entries a node may lag and still be sent requests.
const maxBehind = 100

// Ready says why the node should get no requests, nil when it knows a leader and has caught up.
func (n *Node) Ready() error {
	if n.stopping.Load() {
		return errs.New(errs.Unavailable, "node %q is stopping", n.ID())
	}
	if leader, _, _ := n.cluster.Leader(); leader == "" {
		return errs.New(errs.NoLeader, "node %q knows no leader", n.ID()).WithHint("see that a majority of the nodes is running")
	}
	select {
	case <-n.caughtUp:
	default:
		return errs.New(errs.Unavailable, "node %q has started and is catching up", n.ID())
	}
	if self := n.fsm.State().Node(n.ID()); self != nil && self.State == fsm.NodeLeaving {
		return errs.New(errs.Unavailable, "node %q is being removed", n.ID())
	}
	stats := n.cluster.Stats()
	if stats.CommitIndex > stats.AppliedIndex+maxBehind || n.fsm.State().Node(n.ID()) == nil {
		return errs.New(errs.Unavailable, "node %q is %d log entries behind", n.ID(), stats.CommitIndex-stats.AppliedIndex)
	}
	return nil
}

// Leader gives the leader this node knows, and how long ago it heard of one.
func (n *Node) Leader() (string, time.Duration) {
	leader, _, _ := n.cluster.Leader()
	return leader, n.cluster.LeaderContact()
}

// Audit gives the newest audit records, newest first.
func (n *Node) Audit(most int) []fsm.Audit { return n.fsm.Audit(most) }
