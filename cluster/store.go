package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"kontiki/errs"
	"kontiki/fault"
)

// stores is where a node's Raft state lives. witness may be nil.
type stores struct {
	log       raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	witness   *witness
	path      string // what to name in errors
	close     func() error
}

// guard stands between Raft and its stores. It gives every entry and every stable value a checksum and verifies it on
// each read, tells the witness what was stored, measures writes, and turns an error of the store into the end of the
// node's part in the group.
//
// Raft answers some errors of its stores with a panic on its own goroutine (a log entry that cannot be read, a term
// that cannot be written). A panic would name a stack instead of a path and a remedy, so once the node runs the guard
// ends that goroutine instead (runtime.Goexit runs Raft's own clean-up) after it has reported the failure; Cluster
// then shuts Raft down, and the process exits.
type guard struct {
	stores
	fail    func(error)
	running atomic.Bool // false while opening: there an error can still be returned
	stall   *stallWatch
	writes  latencies
}

var (
	_ raft.LogStore    = (*guard)(nil)
	_ raft.StableStore = (*guard)(nil)
)

// FirstIndex implements raft.LogStore.
func (g *guard) FirstIndex() (uint64, error) {
	i, err := g.log.FirstIndex()
	return i, g.failed("read the first index of", err)
}

// LastIndex implements raft.LogStore.
func (g *guard) LastIndex() (uint64, error) {
	i, err := g.log.LastIndex()
	return i, g.failed("read the last index of", err)
}

// GetLog implements raft.LogStore.
func (g *guard) GetLog(index uint64, log *raft.Log) error {
	err := g.log.GetLog(index, log)
	if errors.Is(err, raft.ErrLogNotFound) {
		return raft.ErrLogNotFound // Raft compares it
	}
	if err == nil {
		err = checkLog(index, log)
	}
	if err != nil {
		g.park(corrupt(g.path, fmt.Errorf("entry %d: %w", index, err)))
		return err
	}
	log.Extensions = nil
	return nil
}

// StoreLog implements raft.LogStore.
func (g *guard) StoreLog(log *raft.Log) error { return g.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. After an error it is unknown what was stored; Raft acknowledges none of it.
func (g *guard) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		sealed[i] = sealLog(l)
	}
	start := time.Now()
	defer g.stall.watch()()
	err := fault.Point("cluster.store.before")
	if err == nil {
		err = g.log.StoreLogs(sealed)
	}
	if err == nil {
		err = g.witness.stored(sealed[len(sealed)-1])
	}
	if err == nil {
		err = fault.Point("cluster.store.after")
	}
	g.writes.add(time.Since(start))
	return g.failed("write to", err)
}

// IsMonotonic implements raft.MonotonicLogStore: a snapshot from the leader empties the log, so it has no gaps.
func (g *guard) IsMonotonic() bool { return true }

// DeleteRange implements raft.LogStore.
func (g *guard) DeleteRange(first, last uint64) error {
	err := fault.Point("cluster.truncate.before")
	if err == nil {
		err = g.witness.deleting(first, last)
	}
	if err == nil {
		err = g.log.DeleteRange(first, last)
	}
	if err == nil {
		err = fault.Point("cluster.truncate.after")
	}
	return g.failed("truncate", err)
}

// Set implements raft.StableStore.
func (g *guard) Set(key, value []byte) error {
	err := fault.Point("cluster.term.before")
	if err == nil {
		err = g.stable.Set(key, sealValue(key, value))
	}
	if err == nil {
		err = g.witness.set(string(key), value)
	}
	if err == nil {
		err = fault.Point("cluster.term.after")
	}
	if err != nil {
		g.park(g.failed("write to", err))
	}
	return err
}

// Get implements raft.StableStore; a key that was never set gives no value.
func (g *guard) Get(key []byte) ([]byte, error) {
	sealed, err := g.stable.Get(key)
	if err != nil && err.Error() != "not found" || err == nil && len(sealed) == 0 {
		return nil, g.failed("read from", err)
	}
	if err != nil {
		return nil, nil
	}
	value, err := openValue(key, sealed)
	if err != nil {
		return nil, corrupt(g.path, err)
	}
	return value, nil
}

// SetUint64 implements raft.StableStore.
func (g *guard) SetUint64(key []byte, value uint64) error {
	return g.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (g *guard) GetUint64(key []byte) (uint64, error) {
	value, err := g.Get(key)
	if err != nil || value == nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, corrupt(g.path, fmt.Errorf("the value of %q has %d bytes", key, len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}

// failed reports an error of the store and gives it with its path; nil stays nil.
func (g *guard) failed(action string, err error) error {
	if err == nil {
		return nil
	}
	e := errs.New(storeCode(err), "%s %s: %w", action, g.path, err).
		WithHint("mend the disk or make room on it, then start the node again: it catches up by itself")
	if g.running.Load() {
		g.fail(e)
	}
	return e
}

// park reports the failure and, once the node runs, does not return.
func (g *guard) park(failure error) {
	if g.running.Load() {
		g.fail(failure)
		runtime.Goexit()
	}
}
