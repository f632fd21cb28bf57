package node

import (
	"context"
	"slices"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// An upload is stored before its deployment is committed, so one that was refused or given up leaves content behind that
// the state knows nothing of. The node tells what it holds, and the leader, seeing that nothing needs it, orders its
// removal as that of any other blob.
const (
	strayEvery = time.Hour
	strayAge   = 10 * time.Minute // younger content may belong to an upload under way
	strayMost  = 1000             // told at a time
)

// tellStrays runs until ctx ends.
func (n *Node) tellStrays(ctx context.Context) {
	for {
		if err := n.tellStraysOnce(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Logger.Warn("what this node holds besides the state is not told", "error", err)
		}
		select {
		case <-time.After(strayEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) tellStraysOnce(ctx context.Context) error {
	refs, err := n.blobs.store.List()
	if err != nil {
		return err
	}
	told := 0
	for _, ref := range refs {
		if b := n.fsm.State().Blob(ref.Digest); b != nil && slices.Contains(b.Nodes, n.ID()) {
			continue
		}
		at, err := n.blobs.store.Stored(ref.Digest)
		if errs.CodeOf(err) == errs.NotFound || err == nil && time.Since(at) < strayAge {
			continue
		}
		if err != nil {
			return err
		}
		if told++; told > strayMost {
			return nil
		}
		cmd := fsm.NewCommand(fsm.BlobHeld{Digest: ref.Digest, Size: ref.Size, Node: n.ID()}, fsm.NodeActor(n.ID()))
		if _, err := n.cluster.Propose(ctx, cmd); err != nil {
			return err
		}
	}
	return nil
}
