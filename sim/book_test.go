package sim

import (
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"kontiki/cluster"
	"kontiki/fsm"
)

// book is kept by all nodes together: what was in the log at which index, what it gave, and what the state was then.
type book struct {
	t     *testing.T
	disks map[string]*disk

	mu      sync.Mutex
	entries map[uint64]string // index → the entry and its results
	hashes  map[uint64]string
	applied map[string][]uint64 // command ID → the indexes at which it took effect
	newest  uint64
}

func newBook(t *testing.T) *book {
	return &book{t: t, disks: map[string]*disk{}, entries: map[uint64]string{}, hashes: map[uint64]string{}, applied: map[string][]uint64{}}
}

// witness wraps a node's state machine and checks the invariants with every entry.
type witness struct {
	*fsm.FSM
	b    *book
	node string
	last map[string]progress // deployments
	was  map[string]uint64   // projects that have had an active deployment, by the index they were made at
}

type progress struct {
	phase  int
	status fsm.Status
}

var _ cluster.StateMachine = (*witness)(nil)

func (b *book) witness(node string, f *fsm.FSM) *witness {
	return &witness{FSM: f, b: b, node: node, last: map[string]progress{}, was: map[string]uint64{}}
}

// Restore implements cluster.StateMachine: what comes after a snapshot is compared with the snapshot.
func (w *witness) Restore(r io.Reader) error {
	err := w.FSM.Restore(r)
	if err == nil {
		w.look()
	}
	return err
}

// Apply implements cluster.StateMachine.
func (w *witness) Apply(index, term uint64, entry []byte) []fsm.Result {
	results := w.FSM.Apply(index, term, entry)
	w.b.note(w.node, index, entry, results)
	if index%16 == 0 {
		w.b.same(w.b.hashes, w.node, index, hashOf(w.FSM))
	}
	w.look()
	if w.b.leading(index) {
		w.serving()
	}
	return results
}

// leading reports whether no node has got further than index.
func (b *book) leading(index uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if index <= b.newest {
		return false
	}
	b.newest = index
	return true
}

// serving says so when a node does not have what it is to serve from this log entry on: the release that is active now,
// whatever became of those before and after it.
func (w *witness) serving() {
	s := w.State()
	for d := range s.DeploymentsIn(fsm.StatusActive) {
		if len(d.Instances) == 0 {
			w.b.t.Errorf("at index %d nobody serves %s, the active deployment of %s", s.Index, d.ID, d.Project)
		}
		for _, i := range d.Instances {
			if !w.b.disks[i.Node].serves(d) {
				w.b.t.Errorf("at index %d %s does not have %s, the active deployment of %s", s.Index, i.Node, d.ID, d.Project)
			}
		}
	}
}

func hashOf(f *fsm.FSM) string { return f.Snapshot().(*fsm.Snapshot).Hash() }

func (b *book) note(node string, index uint64, entry []byte, results []fsm.Result) {
	b.same(b.entries, node, index, string(entry)+"\x00"+string(fsm.EncodeResults(results)))
	commands, err := fsm.DecodeEntry(entry)
	if err != nil || len(commands) != len(results) {
		b.t.Errorf("entry %d: %d commands, %d results: %v", index, len(commands), len(results), err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, r := range results {
		cmd, err := fsm.DecodeCommand(commands[i])
		if err == nil && r.Err == nil && !r.Replayed && !slices.Contains(b.applied[cmd.ID], index) {
			b.applied[cmd.ID] = append(b.applied[cmd.ID], index)
		}
	}
}

// same says so when two nodes have different things at one index.
func (b *book) same(all map[uint64]string, node string, index uint64, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if first, ok := all[index]; ok && first != what {
		b.t.Errorf("node %s differs from another one at log index %d", node, index)
	}
	all[index] = what
}

// look compares the state with the one of the entry before.
func (w *witness) look() {
	s := w.State()
	for d := range s.Deployments("") {
		w.step(s, d)
	}
	for p := range s.Projects("") {
		var active []string
		for d := range s.DeploymentsOf(p.Name, 0) {
			if d.Status == fsm.StatusActive {
				active = append(active, d.ID)
			}
		}
		if len(active) > 1 || len(active) == 1 && active[0] != p.Active || len(active) == 0 && p.Active != "" {
			w.b.t.Errorf("node %s at index %d: project %s has %q active, and these are: %v", w.node, s.Index, p.Name, p.Active, active)
		}
		if len(active) == 0 && w.was[p.Name] == p.CreateIndex {
			w.b.t.Errorf("node %s at index %d: project %s has had an active deployment and has none", w.node, s.Index, p.Name)
		}
		if len(active) > 0 {
			w.was[p.Name] = p.CreateIndex
		}
	}
}

// step says so when a deployment went back, or on after its end.
func (w *witness) step(s *fsm.State, d *fsm.Deployment) {
	now, before := progress{d.Phase.Order(), d.Status}, w.last[d.ID]
	w.last[d.ID] = now
	if before.status == "" || reflect.DeepEqual(before, now) {
		return
	}
	superseded := before.status == fsm.StatusActive && now.status == fsm.StatusSuperseded
	if before.phase > now.phase || before.status.Terminal() && !superseded {
		w.b.t.Errorf("node %s at index %d: deployment %s went from %v to %v", w.node, s.Index, d.ID, before, now)
	}
}

// tally counts what happened.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func newTally() *tally { return &tally{n: map[string]int{}} }

func (t *tally) count(what string) { t.plus(what, 1) }

func (t *tally) plus(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[what] += n
}

func (t *tally) most(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[what] = max(t.n[what], n)
}

func (t *tally) add(other *tally) {
	for what, n := range other.n {
		if strings.HasPrefix(what, "most ") {
			t.most(what, n)
			continue
		}
		t.plus(what, n)
	}
	t.count("simulations")
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, what := range slices.Sorted(maps.Keys(t.n)) {
		out = append(out, fmt.Sprint(what, " ", t.n[what]))
	}
	return strings.Join(out, ", ")
}

// wantAll fails unless every kind of fault has happened: one that never does proves nothing.
func (t *tally) wantAll(tt *testing.T) {
	for _, f := range faults {
		if t.n[f.name] == 0 {
			tt.Errorf("%s never happened", f.name)
		}
	}
	for _, what := range []string{"active", "failed", "cancelled", "superseded", "retries"} {
		if t.n[what] == 0 {
			tt.Errorf("no deployment or write was %s", what)
		}
	}
}
