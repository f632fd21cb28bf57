package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kontiki/errs"
)

// Identity says whose data directory this is. It is written once, and once more when the node has state.
type Identity struct {
	ClusterID   string `json:"cluster_id"`
	NodeID      string `json:"node_id"`
	Incarnation string `json:"incarnation"`  // of this data directory
	Fingerprint string `json:"fingerprint"`  // of the cluster's CA
	ClusterAddr string `json:"cluster_addr"` // listen addresses
	APIAddr     string `json:"api_addr"`
	IngressAddr string `json:"ingress_addr"`
	Advertise   string `json:"advertise"` // host others reach this node by
	// Started is set once the node has had Raft state: from then on an empty log is damage, not a beginning.
	Started bool `json:"started"`
}

const identityFile = "identity.json"

// LoadIdentity reads a data directory's identity. NotFound: the directory belongs to no node yet.
func LoadIdentity(dataDir string) (Identity, error) {
	var id Identity
	path := filepath.Join(dataDir, identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return id, errs.New(errs.NotFound, "%s is no node's data directory", dataDir).WithField("data").
			WithHint("make a cluster with kontiki init, or join one with kontiki join")
	}
	if err != nil {
		return id, fmt.Errorf("read identity: %w", err)
	}
	if err := json.Unmarshal(b, &id); err != nil || id.NodeID == "" || id.ClusterID == "" {
		return id, errs.New(errs.StateCorrupt, "%s cannot be read", path).
			WithHint("move the data directory away, remove the node with kontiki peers remove on another node, and join again under a new ID")
	}
	return id, nil
}

// save writes the identity durably.
func (id Identity) save(dataDir string) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	if err := writeDurably(filepath.Join(dataDir, identityFile), append(b, '\n')); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// writeDurably replaces a file: old or new content after a crash, never a part.
func writeDurably(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone after the rename
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// claim makes an empty data directory; one with anything in it is refused.
func claim(dataDir string) error {
	if err := os.MkdirAll(dataDir, 0o711); err != nil {
		return errs.New(errs.Invalid, "make data directory: %w", err).WithField("data")
	}
	entries, err := os.ReadDir(dataDir)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	if len(entries) > 0 {
		e := errs.New(errs.Exists, "the data directory %s is not empty", dataDir).WithField("data")
		if _, err := LoadIdentity(dataDir); errs.CodeOf(err) == errs.NotFound {
			return e.WithHint("choose another one; no node lives there, so if an init or join that was cut off left it, remove it and try again")
		}
		return e.WithHint("choose another one, or start the node that lives there: kontiki server --data %s", dataDir)
	}
	return nil
}
