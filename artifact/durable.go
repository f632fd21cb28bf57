package artifact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// crowd is how many writers at a time sync each for itself; more of them share.
const crowd = 2

// ShareSyncs makes writers share the syncer's syncs while several are at work: a sync of the whole file system costs more
// than that of one file, and less than those of many. It is called before the store is used.
func (s *Store) ShareSyncs(syncer *Syncer) { s.syncer = syncer }

// sync makes what a writer wrote durable, by its own sync or by one that is shared.
func (s *Store) sync(ctx context.Context, own func() error) error {
	if s.syncer == nil || s.writers.Load() <= crowd {
		return own()
	}
	return s.syncer.Sync(ctx)
}

// folder makes one of the 256 folders when it is first needed. A blob is only as durable as its folder's entry, which
// an earlier process may have made without living to sync it.
func (s *Store) folder(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable[path] {
		return nil
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return diskError(err, "create blob directory")
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	s.durable[path] = true
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory to sync: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return diskError(err, "sync directory %s", dir)
	}
	return nil
}
