package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"kontiki/errs"
)

// full gives a machine with something in every table and ring.
func full(t testing.TB) *machine {
	m := three(t)
	m.ok(TokenCreate{Token: token("t2", "ci")})
	m.activate(1, "blog")
	m.ok(ProjectUpdate{Name: "blog", Domains: &[]string{"a.org", "b.org"}, Metadata: map[string]string{"x": "1", "y": "2"}})
	m.activate(2, "blog")
	id := m.start(3, "shop")
	m.until(id, PhaseHealthCheck)
	m.ok(StepReport{StepKey: m.report(id, "n1").StepKey, Failure: &Failure{Code: errs.Unhealthy, Message: "no", Causes: []string{"a", "b"}, LogTail: []string{"c"}}})
	m.create(4, "gone")
	m.ok(ProjectDelete{Name: "gone"})
	m.ok(JoinTokenCreate{ID: secret("x"), ExpiresAt: 2_000_000_000})
	m.join("n4")
	m.ok(NodeRemove{ID: "n4"})
	m.send(keyed(m.stamp(ProjectCreate{Name: "keyed"}), "key", "request"), m.stamp(ProjectCreate{Name: "UGLY"}))
	for _, table := range tables {
		if _, err := m.f.State().txn.First(table.name, byID); err != nil {
			t.Fatal(err)
		}
		if it, err := m.f.State().txn.Get(table.name, byID+"_prefix", []byte(nil)); err != nil || it.Next() == nil {
			t.Fatalf("table %s is empty: %v", table.name, err)
		}
	}
	return m
}

func TestSnapshotRestoreIsTheSameState(t *testing.T) {
	m := full(t)
	bytes1 := snapshotBytes(t, m.f)
	other := &machine{t: t, f: New(), index: m.index, term: m.term, serial: m.serial}
	if err := other.f.Restore(bytes.NewReader(bytes1)); err != nil {
		t.Fatal(err)
	}
	if other.hash() != m.hash() || other.f.Applied() != m.index || !bytes.Equal(snapshotBytes(t, other.f), bytes1) {
		t.Error("the restored state differs")
	}
	if len(other.f.Audit(1<<20)) != len(m.f.Audit(1<<20)) {
		t.Error("the audit differs")
	}
	for _, x := range []*machine{m, other} {
		x.ok(x.report(nth(3), "n2"))
		x.ok(DeploymentRetry{ID: nth(3), Phase: PhaseHealthCheck, Node: "n1", Attempt: 1})
		x.until(nth(3), PhaseActive)
		if r := x.send(keyed(x.stamp(ProjectCreate{Name: "keyed"}), "key", "request"))[0]; !r.Replayed || r.Err != nil {
			t.Errorf("the key is not remembered: %+v", r)
		}
		if s := x.state(); s.ProjectByDomain("b.org") == nil || s.TokenByHash([]byte("hash of t2")) == nil || !s.Removed("n4") {
			t.Error("an index is not there")
		}
	}
	if other.hash() != m.hash() {
		t.Error("the two machines part after the restore")
	}
}

func TestEmptySnapshot(t *testing.T) {
	f := New()
	if err := full(t).f.Restore(bytes.NewReader(snapshotBytes(t, f))); err != nil {
		t.Error(err)
	}
	m := full(t)
	if err := m.f.Restore(bytes.NewReader(snapshotBytes(t, f))); err != nil || m.hash() != hashOf(f) || m.f.Applied() != 0 {
		t.Errorf("restored at %d: %v", m.f.Applied(), err)
	}
}

// checkRefused restores a bad stream and expects the state to stay as it was.
func checkRefused(t *testing.T, m *machine, stream []byte, what string) {
	t.Helper()
	hash, applied := m.hash(), m.f.Applied()
	if err := m.f.Restore(bytes.NewReader(stream)); errs.CodeOf(err) != errs.StateCorrupt {
		t.Fatalf("%s: %v", what, err)
	}
	if m.hash() != hash || m.f.Applied() != applied {
		t.Fatalf("%s: the state changed", what)
	}
}

func TestTruncatedSnapshotIsRefused(t *testing.T) {
	stream, m := snapshotBytes(t, full(t).f), three(t)
	for n := 0; n < len(stream); n += 1 + n/40 {
		checkRefused(t, m, stream[:n], fmt.Sprintf("%d of %d bytes", n, len(stream)))
	}
	checkRefused(t, m, append(bytes.Clone(stream), 0), "a byte too many")
}

func TestFlippedSnapshotIsRefused(t *testing.T) {
	stream, m := snapshotBytes(t, full(t).f), three(t)
	for at := 0; at < len(stream); at += 1 + at/60 {
		bad := bytes.Clone(stream)
		bad[at] ^= 1 << (at % 8)
		checkRefused(t, m, bad, fmt.Sprintf("bit %d of byte %d", at%8, at))
	}
}

// sealed gives a stream of the records with a right checksum at its end.
func sealed(records ...[]byte) []byte {
	body := bytes.Join(records, nil)
	sum := sha256.Sum256(body)
	return append(body, rec(recordEnd, sum[:])...)
}

func rec(kind byte, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(b))), b...)
}

func TestStrangeSnapshotsAreRefused(t *testing.T) {
	head := rec(recordHead, encode(snapshotHead{Version: 1, Applied: 5}))
	m := three(t)
	for name, stream := range map[string][]byte{
		"no head":           sealed(rec('P', encode(Project{Name: "a"}))),
		"nothing":           nil,
		"two heads":         sealed(head, head),
		"a later format":    sealed(rec(recordHead, encode(snapshotHead{Version: 2}))),
		"a bad head":        sealed(rec(recordHead, []byte{0xff})),
		"an unknown record": sealed(head, rec('?', nil)),
		"a bad object":      sealed(head, rec('P', []byte{0xff})),
		"a bad result":      sealed(head, rec(recordKey, []byte{0xff})),
		"a bad audit":       sealed(head, rec(recordAudit, []byte{0xff})),
		"a huge record":     {recordHead, 0xff, 0xff, 0xff, 0xff},
		"only an end":       sealed(),
	} {
		checkRefused(t, m, stream, name)
	}
	if err := m.f.Restore(bytes.NewReader(sealed(head))); err != nil || m.f.Applied() != 5 {
		t.Errorf("a snapshot of nothing at index 5: %v", err)
	}
}

// A snapshot stays what it was while entries are applied, though it is written only later or at the same time.
func TestSnapshotWhileEntriesAreApplied(t *testing.T) {
	m := full(t)
	s := m.f.Snapshot().(*Snapshot)
	hash, want := s.Hash(), snapshotBytes(t, m.f)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				var b bytes.Buffer
				if _, err := s.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), want) || s.Hash() != hash {
					t.Errorf("the snapshot changed: %v", err)
					return
				}
			}
		})
	}
	for i := range 600 {
		m.ok(ProjectCreate{Name: fmt.Sprint("p", i)})
	}
	wg.Wait()
	if m.hash() == hash {
		t.Error("the state did not change")
	}
}

type failing struct{ left int }

var errDisk = errors.New("no space left")

func (w *failing) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

func TestSnapshotWriteErrorIsGiven(t *testing.T) {
	m := full(t)
	for i := range 3 * ringChunk {
		m.ok(ProjectUpdate{Name: "blog", Metadata: map[string]string{"x": strings.Repeat(fmt.Sprint(i%10), 1000)}})
	}
	total := len(snapshotBytes(t, m.f))
	for _, room := range []int{0, 65 << 10, total - 40, total - 1} {
		if _, err := m.f.Snapshot().WriteTo(&failing{room}); !errors.Is(err, errDisk) {
			t.Errorf("with room for %d of %d bytes: %v", room, total, err)
		}
	}
	if _, err := m.f.Snapshot().WriteTo(&failing{total}); err != nil {
		t.Error(err)
	}
}

// One log gives one hash, and another state another.
func TestHashTellsStatesApart(t *testing.T) {
	a, b := full(t), full(t)
	if a.hash() != b.hash() {
		t.Fatal("the same log gives two hashes")
	}
	b.ok(ProjectUpdate{Name: "blog", Metadata: map[string]string{"x": "other"}})
	if a.hash() == b.hash() {
		t.Error("two states have one hash")
	}
}
