package fsm

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"kontiki/errs"
)

// keepAudit is how many audit records are kept.
const keepAudit = 10_000

// FSM is the replicated state machine of one node.
type FSM struct {
	db      atomic.Pointer[memdb.MemDB]
	applied atomic.Uint64
	changed atomic.Pointer[chan struct{}]

	mu          sync.Mutex // guards what follows; held while an entry is applied
	now         Time       // the log's time, as advance gives it: only retention goes by it
	memory      memory
	audit       ring[Audit]
	checkpoints map[uint64]*Snapshot
	halted      error
	tombstones  int // in the table
}

// New makes an empty state machine.
func New() *FSM {
	f := &FSM{memory: newMemory(), checkpoints: map[uint64]*Snapshot{}}
	f.db.Store(newDB())
	ch := make(chan struct{})
	f.changed.Store(&ch)
	return f
}

func newDB() *memdb.MemDB {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		panic(err) // the schema is a constant
	}
	return db
}

// State gives a view of what is committed here.
func (f *FSM) State() *State {
	index := f.applied.Load()
	return &State{Index: index, txn: f.db.Load().Txn(false)}
}

// Applied is the index of the last entry applied.
func (f *FSM) Applied() uint64 { return f.applied.Load() }

// Changed gives a channel that is closed when the next entry has been applied. Take it before the State that is
// looked at, and nothing is missed.
func (f *FSM) Changed() <-chan struct{} { return *f.changed.Load() }

// Wait returns when the entry at index has been applied, or with the context's error.
func (f *FSM) Wait(ctx context.Context, index uint64) error {
	for {
		changed := f.Changed()
		if f.applied.Load() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for log index %d: %w", index, ctx.Err())
		}
	}
}

// Halted is why this version cannot go on applying the log, or nil: it met a required command that it does not know.
func (f *FSM) Halted() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.halted
}

// Apply applies one log entry and gives a result for each of its commands, or a single error result for an entry that
// cannot be read. It never panics.
func (f *FSM) Apply(index, term uint64, entry []byte) []Result {
	f.mu.Lock()
	results := f.applyLocked(index, term, entry)
	f.mu.Unlock()
	f.publish(index)
	return results
}

func (f *FSM) publish(index uint64) {
	f.applied.Store(index)
	next := make(chan struct{})
	close(*f.changed.Swap(&next))
}

func (f *FSM) applyLocked(index, term uint64, entry []byte) []Result {
	encoded, err := DecodeEntry(entry)
	if err != nil {
		if errs.CodeOf(err) == errs.UnknownCommand && f.halted == nil {
			f.halted = err // of a format that nodes of a later version do apply
		}
		return []Result{{Index: index, Err: errs.From(err)}}
	}
	poison := map[int]error{}
	for {
		t := f.begin(index, term)
		t.records = make([]remembered, 0, len(encoded))
		results, bad, err := t.run(encoded, poison)
		if err == nil {
			t.commit()
			return results
		}
		t.txn.Abort()
		poison[bad] = err // a command that panics is left out, on every node alike, and the rest is applied again
	}
}

// begin begins the application of an entry.
func (f *FSM) begin(index, term uint64) *tx {
	db := f.db.Load()
	txn := db.Txn(true)
	view := &State{Index: index, txn: txn, before: db.Txn(false), fresh: overlay{}}
	return &tx{f: f, txn: txn, view: view, index: index, term: term, fresh: map[dedupKey]int{}}
}

// tx is the application of one entry.
type tx struct {
	f     *FSM
	txn   *memdb.Txn
	view  *State
	index uint64
	term  uint64
	now   Time // of the command at hand

	records []remembered
	fresh   map[dedupKey]int // records of this entry
	audits  []Audit
	latest  Time
	marks   bool               // a checkpoint was asked for
	orders  int                // repairs ordered by this entry
	stones  map[[2]string]bool // tombstones of this entry, by table and key
}

// run applies the commands but for the poisonous ones; when one panics it says which.
func (t *tx) run(encoded [][]byte, poison map[int]error) (results []Result, bad int, err error) {
	at := 0
	defer func() {
		if p := recover(); p != nil {
			bad, err = at, fmt.Errorf("command %d of entry %d panics: %v", at, t.index, p)
		}
	}()
	results = make([]Result, len(encoded))
	for i, b := range encoded {
		at = i
		if poison[i] != nil {
			results[i] = Result{Index: t.index, Err: errs.New(errs.Internal, "%w", poison[i])}
			continue
		}
		results[i] = t.one(b)
	}
	return results, 0, nil
}

func (t *tx) one(b []byte) Result {
	cmd, err := DecodeCommand(b)
	if err != nil {
		return Result{Index: t.index, Err: errs.From(err)}
	}
	if cmd.ID == "" || len(cmd.ID) > 128 {
		return Result{Index: t.index, Err: errs.New(errs.BadCommand, "a command needs an ID of 1 to 128 bytes")}
	}
	k := keyOf(cmd.ID)
	if r, ok := t.recall(k, cmd); ok {
		return r
	}
	if cmd.Term != 0 && cmd.Term != t.term {
		return Result{Index: t.index, Err: errs.New(errs.StaleReport, "decided by the leader of term %d, now it is term %d", cmd.Term, t.term)}
	}
	h, ok := handlers[cmd.Kind]
	if !ok {
		return t.unknown(cmd)
	}
	t.now = cmd.Time
	t.latest = max(t.latest, cmd.Time)
	body, object, err := h.apply(t, cmd)
	r := Result{Index: t.index, Err: errs.From(err)}
	if body != nil {
		r.Body = encode(body)
	}
	if errs.CodeOf(err) != errs.TooMany { // the user is told to try the same again later
		t.note(k, cmd, r)
	}
	if h.audited {
		t.audits = append(t.audits, Audit{Index: t.index, At: cmd.Time, Actor: cmd.Actor, Action: cmd.Kind,
			Object: clip(object), Refused: string(errs.CodeOf(err))})
	}
	return r
}

func (t *tx) recall(k dedupKey, cmd Command) (Result, bool) {
	if i, ok := t.fresh[k]; ok {
		return t.records[i].answer(cmd), true
	}
	return t.f.memory.recall(k, cmd)
}

func (t *tx) note(k dedupKey, cmd Command, r Result) {
	t.fresh[k] = len(t.records)
	t.records = append(t.records, remembered{Key: k, Request: cmd.Request, Index: r.Index, Err: r.Err, Body: r.Body})
}

// unknown answers a command of a kind that is not known here; a required one halts this node.
func (t *tx) unknown(cmd Command) Result {
	err := errs.New(errs.UnknownCommand, "log entry %d has a command %q that this version does not know", t.index, clip(string(cmd.Kind))).
		WithHint("update this node's kontiki")
	if !cmd.Optional && t.f.halted == nil {
		t.f.halted = err
	}
	return Result{Index: t.index, Err: err}
}

func (t *tx) commit() {
	f := t.f
	t.trimTombstones()
	t.txn.Commit()
	f.now = f.now.advance(t.latest)
	for _, r := range t.records {
		r.Time = f.now
		f.memory.remember(r)
	}
	for _, a := range t.audits {
		f.audit.append(a)
	}
	f.memory.forget(f.now)
	f.audit.trim(func(_ *Audit, left int) bool { return left >= keepAudit }, nil)
	if t.marks {
		f.mark(t.index)
	}
}

// state is the view of the entry so far.
func (t *tx) state() *State { return t.view }

// put stores an object; ix are its own indexes.
func put[T any](t *tx, tbl string, o *T, ix *Indexes) {
	if ix.CreateIndex == 0 {
		ix.CreateIndex = t.index
	}
	ix.ModifyIndex = t.index
	if err := t.txn.Insert(tbl, o); err != nil {
		panic(err) // run turns it into an error result, on every node alike
	}
	t.view.fresh.put(tbl, o, false)
}

// drop removes an object and leaves a tombstone.
func drop[T any](t *tx, tbl, name string, o *T) {
	if err := t.txn.Delete(tbl, o); err != nil {
		panic(err) // run turns it into an error result, on every node alike
	}
	t.view.fresh.put(tbl, o, true)
	if t.stones == nil {
		t.stones = map[[2]string]bool{}
	}
	t.stones[[2]string{tbl, name}] = true
	stone := &Tombstone{Table: tbl, Key: name}
	put(t, tableTombstones, stone, &stone.Indexes)
}

// Audit gives the newest n audit records, newest first.
func (f *FSM) Audit(n int) []Audit {
	f.mu.Lock()
	v := f.audit.view()
	f.mu.Unlock()
	var out []Audit
	for seq := v.next; seq > v.first && len(out) < n; seq-- {
		out = append(out, *v.at(seq - 1))
	}
	return out
}
