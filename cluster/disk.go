package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"kontiki/errs"
	"kontiki/fault"
)

const (
	boltFile = "raft.db"
	lockFile = "lock"
)

// openDisk opens the stores in dir. What it cannot read as it was written it refuses with StateCorrupt; whether the
// contents belong together is for checkState to say.
func openDisk(cfg Config) (s stores, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return s, fmt.Errorf("make the folder for the Raft log: %w", err)
	}
	var closers closers
	defer func() {
		if err != nil {
			err = errors.Join(err, closers.close())
		}
	}()
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return s, err
	}
	closers.add(unlock)
	path := filepath.Join(cfg.Dir, boltFile)
	w, existed, err := openWitness(cfg.Dir)
	if err != nil {
		return s, err
	}
	closers.add(w.close)
	if err := checkBolt(path, cfg.Expect || existed && w.seen != seen{}); err != nil {
		return s, corrupt(path, err)
	}
	bolt, err := openBolt(path)
	if err != nil {
		return s, err
	}
	closers.add(bolt.Close)
	snapshots, err := openSnapshots(cfg, w)
	if err != nil {
		return s, err
	}
	return stores{log: bolt, stable: bolt, snapshots: snapshots, witness: w, path: path, close: closers.close}, nil
}

// openBolt turns bolt's panics on pages it does not understand into errors. Faults of its memory map, as on a file
// that is shorter than it says, are panics too for as long as SetPanicOnFault holds.
func openBolt(path string) (store *raftboltdb.BoltStore, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = corrupt(path, fmt.Errorf("bolt: %v", p))
		}
	}()
	store, err = raftboltdb.New(raftboltdb.Options{
		Path: path,
		// The free list can be found from the tree; writing it costs more with every free page.
		BoltOptions:             &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: time.Second},
		MsgpackUseNewTimeFormat: true,
	})
	switch {
	case err == nil:
		return store, nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, os.ErrPermission):
		return nil, errs.New(storeCode(err), "open %s: %w", path, err).WithHint("make room, or give the node's user the right to write there")
	}
	return nil, corrupt(path, err)
}

// lock keeps a second process off the folder.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the Raft log: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(errs.New(errs.Conflict, "the data directory of %s is in use by another process", dir).
			WithHint("stop the other kontiki first"), f.Close())
	}
	return f.Close, nil
}

// closers closes what was opened, the last first.
type closers struct{ all []func() error }

func (c *closers) add(f func() error) { c.all = append(c.all, f) }

func (c *closers) close() error {
	var err error
	for len(c.all) > 0 {
		last := len(c.all) - 1
		err = errors.Join(err, c.all[last]())
		c.all = c.all[:last]
	}
	return err
}

// wholeSnapshots shows only snapshots whose bytes are what was written: Raft would stop at a torn one when it sends
// it to a follower, and would not look whether the log reaches back to the one before.
type wholeSnapshots struct {
	raft.SnapshotStore
	torn    map[string]bool
	witness *witness
}

func openSnapshots(cfg Config, w *witness) (*wholeSnapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, cfg.Snapshots.Retain, raftLogger(cfg.Logger))
	if err != nil {
		return nil, fmt.Errorf("open the snapshots in %s: %w", cfg.Dir, err)
	}
	s := &wholeSnapshots{SnapshotStore: files, torn: map[string]bool{}, witness: w}
	all, err := files.List()
	if err != nil {
		return nil, fmt.Errorf("list the snapshots in %s: %w", cfg.Dir, err)
	}
	for _, meta := range all {
		_, content, err := files.Open(meta.ID) // reads it all and compares the checksum
		if err != nil {
			s.torn[meta.ID] = true
			cfg.Logger.Warn("a snapshot is torn and will not be used", "snapshot", meta.ID, "index", meta.Index, "err", err)
			continue
		}
		closeQuietly(cfg.Logger, content)
	}
	return s, nil
}

func closeQuietly(log *slog.Logger, c io.Closer) {
	if err := c.Close(); err != nil {
		log.Debug("close", "err", err)
	}
}

// List implements raft.SnapshotStore.
func (s *wholeSnapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	var whole []*raft.SnapshotMeta
	for _, meta := range all {
		if !s.torn[meta.ID] {
			whole = append(whole, meta)
		}
	}
	return whole, err
}

// Create implements raft.SnapshotStore.
func (s *wholeSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	if err := fault.Point("cluster.snapshot.before"); err != nil {
		return nil, err
	}
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	if err != nil {
		return nil, err
	}
	return &witnessedSink{SnapshotSink: sink, index: index, witness: s.witness}, nil
}

// witnessedSink tells the witness when a snapshot is whole.
type witnessedSink struct {
	raft.SnapshotSink
	index   uint64
	witness *witness
}

// Close implements raft.SnapshotSink.
func (s *witnessedSink) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	if err := s.witness.snapshot(s.index); err != nil {
		return err
	}
	return fault.Point("cluster.snapshot.after")
}
