package cluster

import (
	"io"

	"github.com/hashicorp/raft"
)

// machine puts a StateMachine behind Raft's interface.
type machine struct{ sm StateMachine }

// Apply implements raft.FSM; the response is a []fsm.Result.
func (m machine) Apply(l *raft.Log) any { return m.sm.Apply(l.Index, l.Term, l.Data) }

// Snapshot implements raft.FSM.
func (m machine) Snapshot() (raft.FSMSnapshot, error) { return snapshot{m.sm.Snapshot()}, nil }

// Restore implements raft.FSM.
func (m machine) Restore(r io.ReadCloser) error { return m.sm.Restore(r) }

// snapshot is a moment of the state machine, which Raft writes out beside Apply. Raft closes or cancels the sink.
type snapshot struct{ state io.WriterTo }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	_, err := s.state.WriteTo(sink)
	return err
}

// Release implements raft.FSMSnapshot: the state is garbage-collected memory.
func (s snapshot) Release() {}
