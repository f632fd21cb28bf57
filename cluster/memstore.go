package cluster

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// MemoryStore keeps a node's log, term, vote and snapshots in memory. A Cluster that is killed and opened again on the
// same MemoryStore finds what it had stored, as after kill -9 of a process with a disk.
type MemoryStore struct {
	log       *raft.InmemStore
	snapshots *memorySnapshots
}

// NewMemoryStore makes an empty one.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{log: raft.NewInmemStore(), snapshots: &memorySnapshots{}}
}

func (m *MemoryStore) stores() stores {
	return stores{log: m.log, stable: m.log, snapshots: m.snapshots, path: "memory", close: func() error { return nil }}
}

// memorySnapshots is a raft.SnapshotStore that shows a snapshot only once it is whole.
type memorySnapshots struct {
	mu     sync.Mutex
	newest *memorySink
	made   int
}

// memorySink is a snapshot being written, and afterwards the snapshot.
type memorySink struct {
	bytes.Buffer
	meta  raft.SnapshotMeta
	store *memorySnapshots
}

// Create implements raft.SnapshotStore.
func (m *memorySnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return &memorySink{store: m, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, m.made), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// List implements raft.SnapshotStore.
func (m *memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newest == nil {
		return nil, nil
	}
	meta := m.newest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
func (m *memorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newest == nil || m.newest.meta.ID != id {
		return nil, nil, fmt.Errorf("there is no snapshot %s", id)
	}
	meta := m.newest.meta
	return &meta, io.NopCloser(bytes.NewReader(slices.Clone(m.newest.Bytes()))), nil
}

// ID implements raft.SnapshotSink.
func (s *memorySink) ID() string { return s.meta.ID }

// Cancel implements raft.SnapshotSink.
func (s *memorySink) Cancel() error { return nil }

// Close implements raft.SnapshotSink.
func (s *memorySink) Close() error {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.meta.Size = int64(s.Len())
	s.store.newest = s
	return nil
}
