package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kontiki/errs"
)

// ownerFile is beside the Raft log and says whose it is. Another node's log under this node's name would let it vote
// twice, and speak for what it never had.
const ownerFile = "owner"

// claimLog makes sure that the Raft log in dir is this node's, and marks a fresh one. The error is of code
// IdentityMismatch.
func claimLog(dir string, id Identity) error {
	mine := strings.Join([]string{id.ClusterID, id.NodeID, id.Incarnation}, " ") + "\n"
	found, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err == nil && string(found) == mine {
		return nil
	}
	if err == nil {
		return notMine(dir, id, "says it is that of "+strings.TrimSpace(string(found)))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the owner of the Raft log: %w", err)
	}
	_, err = os.Lstat(filepath.Join(dir, "raft.db"))
	if err == nil {
		return notMine(dir, id, "does not say whose it is")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for a Raft log: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder for the Raft log: %w", err)
	}
	return writeDurably(filepath.Join(dir, ownerFile), []byte(mine))
}

func notMine(dir string, id Identity, what string) error {
	return errs.New(errs.IdentityMismatch, "the Raft log in %s %s, and this is node %q of cluster %s", dir, what, id.NodeID, id.ClusterID).
		WithHint("put the directory back as it was; if it is lost, move the data directory away, remove the node with "+
			"kontiki peers remove %s on another one, and join again under a new ID", id.NodeID)
}
