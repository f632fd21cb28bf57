package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"kontiki/fsm"
)

// record is a small state machine: it keeps the IDs of commands in the order of their application, each once.
type record struct {
	mu      sync.Mutex
	state   recordState
	seen    map[string]uint64
	changed chan struct{}
}

type recordState struct {
	Index uint64
	IDs   []string
	At    []uint64
}

var _ StateMachine = (*record)(nil)

func newRecord() *record { return &record{seen: map[string]uint64{}, changed: make(chan struct{})} }

func (r *record) Apply(index, _ uint64, entry []byte) []fsm.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index <= r.state.Index {
		panic(fmt.Sprintf("entry %d after entry %d", index, r.state.Index))
	}
	commands, err := fsm.DecodeEntry(entry)
	if err != nil {
		panic(err)
	}
	var results []fsm.Result
	for _, data := range commands {
		cmd, err := fsm.DecodeCommand(data)
		if err != nil {
			panic(err)
		}
		first, again := r.seen[cmd.ID]
		if !again {
			first = index
			r.seen[cmd.ID] = index
			r.state.IDs, r.state.At = append(r.state.IDs, cmd.ID), append(r.state.At, index)
		}
		results = append(results, fsm.Result{Index: first, Replayed: again})
	}
	r.advance(index)
	return results
}

func (r *record) advance(index uint64) {
	r.state.Index = index
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *record) Snapshot() io.WriterTo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return recordState{r.state.Index, slices.Clone(r.state.IDs), slices.Clone(r.state.At)}
}

func (s recordState) WriteTo(w io.Writer) (int64, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	n, err := w.Write(b)
	return int64(n), err
}

func (r *record) Restore(rd io.Reader) error {
	var s recordState
	if err := json.NewDecoder(rd).Decode(&s); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.seen = s, map[string]uint64{}
	for i, id := range s.IDs {
		r.seen[id] = s.At[i]
	}
	r.advance(s.Index)
	return nil
}

func (r *record) Applied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Index
}

func (r *record) Wait(ctx context.Context, index uint64) error {
	for {
		r.mu.Lock()
		applied, changed := r.state.Index, r.changed
		r.mu.Unlock()
		if applied >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *record) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.state.IDs)
}

func (r *record) has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.seen[id]
	return ok
}
