package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
)

// witness is a small file beside raft.db that says how far the log, the snapshots and the term had come. Checksums
// prove that what is read is what was written; only a second record shows that something is missing, such as when a
// damaged page makes bolt answer from an older tree.
//
// It is written after what it tells of is on disk, and not synced: after kill -9 it is exact, after a power cut it may
// be behind, never ahead. Only where it has to go back is it synced, before the log is cut.
type witness struct {
	mu   sync.Mutex
	file *os.File
	seen seen
}

// seen is what a witness has seen: the last entry, the newest snapshot and the highest term and vote that were stored.
type seen struct{ last, snapshot, term, vote uint64 }

const (
	witnessFile = "witness"
	witnessSize = 4*8 + 4
)

// openWitness opens or makes the witness in dir; existed tells which.
func openWitness(dir string) (w *witness, existed bool, err error) {
	path := filepath.Join(dir, witnessFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("read the Raft witness: %w", err)
	}
	w = &witness{}
	if existed = len(data) > 0; existed {
		if len(data) != witnessSize || crc32.Checksum(data[:witnessSize-4], castagnoli) != binary.BigEndian.Uint32(data[witnessSize-4:]) {
			return nil, true, corrupt(path, errors.New("it fails its checksum"))
		}
		for i, field := range w.seen.fields() {
			*field = binary.BigEndian.Uint64(data[8*i:])
		}
	}
	w.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("open the Raft witness: %w", err)
	}
	return w, existed, nil
}

func (s *seen) fields() [4]*uint64 { return [4]*uint64{&s.last, &s.snapshot, &s.term, &s.vote} }

// update writes what change makes of what was seen. A nil witness, that of a store in memory, sees nothing.
func (w *witness) update(change func(*seen)) error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.seen)
	data := make([]byte, 0, witnessSize)
	for _, field := range w.seen.fields() {
		data = binary.BigEndian.AppendUint64(data, *field)
	}
	data = binary.BigEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
	_, err := w.file.WriteAt(data, 0)
	return err
}

func (w *witness) stored(l *raft.Log) error { return w.update(func(s *seen) { s.last = l.Index }) }

func (w *witness) snapshot(index uint64) error {
	return w.update(func(s *seen) { s.snapshot = max(s.snapshot, index) })
}

// set takes note of the two numbers that must never go back. The names are Raft's.
func (w *witness) set(key string, value []byte) error {
	if len(value) != 8 || key != "CurrentTerm" && key != "LastVoteTerm" {
		return nil
	}
	n := binary.BigEndian.Uint64(value)
	return w.update(func(s *seen) {
		if key == "CurrentTerm" {
			s.term = n
		} else {
			s.vote = n
		}
	})
}

// deleting is told before entries are deleted. Only when the end of the log goes does the witness go back.
func (w *witness) deleting(first, last uint64) error {
	back := false
	err := w.update(func(s *seen) {
		if back = last >= s.last; back {
			s.last = min(s.last, first-1)
		}
	})
	if err != nil || !back {
		return err
	}
	return w.file.Sync()
}

func (w *witness) close() error {
	if w == nil {
		return nil
	}
	return w.file.Close()
}
