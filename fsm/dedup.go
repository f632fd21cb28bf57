package fsm

import (
	"bytes"
	"crypto/sha256"

	"kontiki/errs"
)

// How long results are remembered. A command with a Request came with a client's key and is kept for a day, or until
// 262,144 younger ones came, whichever is sooner; all others only have to outlive the retries of the node that proposed
// them. The day is one of the log's time: that of the commands, made to never go back and to go on by no more than
// logStep an entry, so that one command of a clock that is far ahead ends no day. A clock that stays ahead brings it
// there in the end and makes the keys of that time short-lived, not those that come after: results are stamped with the
// log's time, whatever their proposers' clocks say.
const (
	keepClientMillis = 24 * 60 * 60 * 1000
	logStep          = 10 * 60 * 1000
	keepClientMost   = 1 << 18
	keepNodeMost     = 1 << 16
)

type dedupKey [16]byte

// remembered is the result of a command that was applied.
type remembered struct {
	Key     dedupKey    `cbor:"1,keyasint"`
	Request []byte      `cbor:"2,keyasint,omitempty"`
	Time    Time        `cbor:"3,keyasint"` // the log's
	Index   uint64      `cbor:"4,keyasint"`
	Err     *errs.Error `cbor:"5,keyasint,omitempty"`
	Body    []byte      `cbor:"6,keyasint,omitempty"`
}

// memory remembers results by command ID, in two rings so that the nodes' many commands do not push out the clients'.
type memory struct {
	seen   map[dedupKey]uint64 // sequence number in its ring; the lowest bit says which
	client ring[remembered]
	node   ring[remembered]
}

func newMemory() memory { return memory{seen: map[dedupKey]uint64{}} }

func keyOf(id string) dedupKey {
	sum := sha256.Sum256([]byte(id))
	return dedupKey(sum[:16])
}

// recall gives the result remembered under the key of the command's ID, if any. The same ID with another request is an error result.
func (m *memory) recall(k dedupKey, cmd Command) (Result, bool) {
	at, ok := m.seen[k]
	if !ok {
		return Result{}, false
	}
	r := m.node.at(at >> 1)
	if at&1 == 1 {
		r = m.client.at(at >> 1)
	}
	if r == nil {
		return Result{}, false
	}
	return r.answer(cmd), true
}

// answer is what a command of the same ID gets.
func (r *remembered) answer(cmd Command) Result {
	if !bytes.Equal(r.Request, cmd.Request) {
		return Result{Index: r.Index, Err: errs.New(errs.IdempotencyReuse, "this Idempotency-Key was used for another request").
			WithHint("use a fresh key for every new request")}
	}
	return Result{Index: r.Index, Err: r.Err, Body: r.Body, Replayed: true}
}

// advance gives the log's time after an entry whose latest command has the time given.
func (t Time) advance(latest Time) Time {
	if t == 0 {
		return latest
	}
	return max(t, min(latest, t+logStep))
}

func (m *memory) remember(r remembered) {
	if len(r.Request) > 0 {
		m.seen[r.Key] = m.client.append(r)<<1 | 1
		return
	}
	m.seen[r.Key] = m.node.append(r) << 1
}

// forget drops what need not be remembered any longer at time now.
func (m *memory) forget(now Time) {
	gone := func(r *remembered) { delete(m.seen, r.Key) }
	m.client.trim(func(newest *remembered, left int) bool {
		return newest.Time < now-keepClientMillis || left >= keepClientMost
	}, gone)
	m.node.trim(func(_ *remembered, left int) bool { return left >= keepNodeMost }, gone)
}
