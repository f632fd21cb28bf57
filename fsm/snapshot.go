package fsm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/hashicorp/go-memdb"

	"kontiki/errs"
)

// A snapshot is a stream of records, each: kind byte | length, 4 bytes big endian | CBOR. It begins with a head record
// and ends with the SHA-256 of all before it. Records come in a fixed order, so equal states give equal bytes but for
// the head, and the state hash is taken over the same stream without it.
const (
	recordHead  = 'h'
	recordAudit = 'a'
	recordNode  = 'n' // remembered results of nodes' commands
	recordKey   = 'k' // remembered results under clients' keys
	recordEnd   = 'e'
	recordMost  = 16 << 20
)

type snapshotHead struct {
	Version int    `cbor:"1,keyasint"`
	Applied uint64 `cbor:"2,keyasint"`
	Now     Time   `cbor:"3,keyasint"`
}

// tables gives every table its record byte and type; the order is the stream's.
var tables = []struct {
	record byte
	name   string
	fresh  func() any
}{
	{'C', tableCluster, func() any { return new(Cluster) }},
	{'P', tableProjects, func() any { return new(Project) }},
	{'D', tableDeployments, func() any { return new(Deployment) }},
	{'N', tableNodes, func() any { return new(Node) }},
	{'X', tableRemoved, func() any { return new(RemovedNode) }},
	{'T', tableTokens, func() any { return new(Token) }},
	{'J', tableJoinTokens, func() any { return new(JoinToken) }},
	{'B', tableBlobs, func() any { return new(Blob) }},
	{'R', tableRepairs, func() any { return new(Repair) }},
	{'S', tableTombstones, func() any { return new(Tombstone) }},
}

// Snapshot is the whole state at one index. Taking it costs nothing to speak of; WriteTo may run while entries are
// applied.
type Snapshot struct {
	head   snapshotHead
	txn    *memdb.Txn
	client ring[remembered]
	node   ring[remembered]
	audit  ring[Audit]
}

// Snapshot gives the state as it is now.
func (f *FSM) Snapshot() io.WriterTo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshot(f.applied.Load())
}

func (f *FSM) snapshot(index uint64) *Snapshot {
	return &Snapshot{head: snapshotHead{Version: 1, Applied: index, Now: f.now}, txn: f.db.Load().Txn(false),
		client: f.memory.client.view(), node: f.memory.node.view(), audit: f.audit.view()}
}

// WriteTo streams the snapshot.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	sum := sha256.New()
	out := &recorder{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)}
	out.record(recordHead, s.head)
	s.body(out)
	if err := out.w.Flush(); err != nil && out.err == nil {
		out.err = err
	}
	total := sum.Sum(nil)
	out.w.Reset(w)
	out.raw(recordEnd, total)
	if err := out.w.Flush(); err != nil && out.err == nil {
		out.err = err
	}
	if out.err != nil {
		return out.n, fmt.Errorf("write snapshot: %w", out.err)
	}
	return out.n, nil
}

func (s *Snapshot) body(out *recorder) {
	for _, t := range tables {
		it, err := s.txn.Get(t.name, byID+"_prefix", []byte(nil))
		if err != nil {
			panic(err) // tables and indexes are constants of this package
		}
		for raw := it.Next(); raw != nil && out.err == nil; raw = it.Next() {
			out.record(t.record, raw)
		}
	}
	s.client.each(func(r *remembered) bool { out.record(recordKey, r); return out.err == nil })
	s.node.each(func(r *remembered) bool { out.record(recordNode, r); return out.err == nil })
	s.audit.each(func(a *Audit) bool { out.record(recordAudit, a); return out.err == nil })
}

// Hash gives the hex SHA-256 of the state, equal on two nodes exactly when their states are.
func (s *Snapshot) Hash() string {
	sum := sha256.New()
	out := &recorder{w: bufio.NewWriterSize(sum, 64<<10)}
	s.body(out)
	_ = out.w.Flush() // a hash takes all there is
	return hex.EncodeToString(sum.Sum(nil))
}

type recorder struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (r *recorder) record(kind byte, v any) { r.raw(kind, encode(v)) }

func (r *recorder) raw(kind byte, b []byte) {
	if r.err != nil {
		return
	}
	var head [5]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)))
	if _, r.err = r.w.Write(head[:]); r.err == nil {
		_, r.err = r.w.Write(b)
	}
	r.n += int64(len(head) + len(b))
}

// Restore replaces the state with a snapshot's. When the stream is cut short or altered the state stays as it was and
// the error is of code StateCorrupt.
func (f *FSM) Restore(r io.Reader) error {
	in := &restorer{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New(), txn: nil, memory: newMemory()}
	db := newDB()
	in.txn = db.Txn(true)
	if err := in.run(); err != nil {
		in.txn.Abort()
		return errs.New(errs.StateCorrupt, "restore snapshot: %w", err)
	}
	in.txn.Commit()
	f.mu.Lock()
	f.db.Store(db)
	f.now, f.memory, f.audit = in.head.Now, in.memory, in.audit
	f.tombstones = in.tombstones
	f.mu.Unlock()
	f.publish(in.head.Applied)
	return nil
}

type restorer struct {
	r      *bufio.Reader
	sum    hash.Hash
	txn    *memdb.Txn
	head   snapshotHead
	memory memory
	audit  ring[Audit]

	tombstones int
}

func (in *restorer) run() error {
	for first := true; ; first = false {
		kind, b, err := in.next()
		if err != nil {
			return err
		}
		if first != (kind == recordHead) {
			return errors.New("the head record is missing or repeated")
		}
		if kind == recordEnd {
			if !bytes.Equal(b, in.sum.Sum(nil)) {
				return errors.New("the checksum at its end does not fit")
			}
			if _, err := in.r.ReadByte(); !errors.Is(err, io.EOF) {
				return errors.New("something follows its end")
			}
			return nil
		}
		in.sum.Write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(b))))
		in.sum.Write(b)
		if err := in.record(kind, b); err != nil {
			return err
		}
	}
}

func (in *restorer) next() (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(in.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("it is cut short: %w", err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > recordMost {
		return 0, nil, fmt.Errorf("a record of %d bytes is impossible", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(in.r, b); err != nil {
		return 0, nil, fmt.Errorf("it is cut short: %w", err)
	}
	return head[0], b, nil
}

func (in *restorer) record(kind byte, b []byte) error {
	switch kind {
	case recordHead:
		if err := decode(b, &in.head); err != nil {
			return err
		}
		if in.head.Version != 1 {
			return fmt.Errorf("it has format %d, this version reads 1", in.head.Version)
		}
		return nil
	case recordKey, recordNode:
		var r remembered
		err := decode(b, &r)
		if err == nil {
			in.memory.remember(r)
		}
		return err
	case recordAudit:
		var a Audit
		err := decode(b, &a)
		if err == nil {
			in.audit.append(a)
		}
		return err
	}
	return in.object(kind, b)
}

func (in *restorer) object(kind byte, b []byte) error {
	for _, t := range tables {
		if t.record != kind {
			continue
		}
		o := t.fresh()
		if err := decode(b, o); err != nil {
			return err
		}
		if t.name == tableTombstones {
			in.tombstones++
		}
		return in.txn.Insert(t.name, o)
	}
	return fmt.Errorf("a record of kind %q is not known to this version", kind)
}

// mark keeps the state at index so that its hash can be asked for; the last few are kept.
func (f *FSM) mark(index uint64) {
	f.checkpoints[index] = f.snapshot(index)
	oldest := index
	for i := range f.checkpoints {
		oldest = min(oldest, i)
	}
	if len(f.checkpoints) > 8 {
		delete(f.checkpoints, oldest)
	}
}

// HashAt gives the hash of the state as it was when the checkpoint command at index had been applied, waiting for
// that; NotFound when it is no checkpoint or one too old to be remembered.
func (f *FSM) HashAt(ctx context.Context, index uint64) (string, error) {
	if err := f.Wait(ctx, index); err != nil {
		return "", err
	}
	f.mu.Lock()
	s := f.checkpoints[index]
	f.mu.Unlock()
	if s == nil {
		return "", errs.New(errs.NotFound, "no checkpoint at log index %d is remembered here", index).WithHint("make a new one")
	}
	return s.Hash(), nil
}
