package fsm

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"kontiki/errs"
)

// FuzzApply feeds entries: the raw bytes, the same behind a right header and checksum, as the one command of an entry,
// and as the body of a command of each kind. Nothing panics, an entry gives the same results everywhere, and one that
// cannot be read changes nothing.
func FuzzApply(f *testing.F) {
	m := three(f)
	id := m.start(1, "blog")
	f.Add([]byte(nil))
	f.Add(EncodeEntry(nil))
	f.Add(EncodeEntry([][]byte{m.stamp(creation(2, "blog")).Encode(), m.stamp(mine{"x"}).Encode()}))
	f.Add(m.stamp(m.report(id, "n1")).Encode())
	f.Add(encode(m.report(id, "n1")))
	f.Add(encode(DeploymentAssign{ID: id, Phase: PhasePullingSource, Builder: "n2", Targets: []string{"n3"}}))
	f.Add(encode(ProjectUpdate{Name: "blog", Domains: &[]string{"a.org"}, Metadata: map[string]string{"a": "b"}}))
	state := snapshotBytes(f, m.f)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := New(), New()
		for _, s := range []*FSM{x, y} {
			if err := s.Restore(bytes.NewReader(state)); err != nil {
				t.Fatal(err)
			}
		}
		entries := [][]byte{b, framed(b), EncodeEntry([][]byte{b, b}), EncodeEntry(ofEveryKind(b))}
		for i, e := range entries {
			before, index := hashOf(x), uint64(1000+i)
			rx, ry := x.Apply(index, 7, e), y.Apply(index, 7, e)
			if !bytes.Equal(EncodeResults(rx), EncodeResults(ry)) {
				t.Fatalf("two machines answer %+v and %+v", rx, ry)
			}
			if _, err := DecodeEntry(e); err != nil && (len(rx) != 1 || rx[0].Err == nil || hashOf(x) != before) {
				t.Fatalf("an unreadable entry gives %+v", rx)
			}
		}
		if x.Applied() != 1003 || hashOf(x) != hashOf(y) {
			t.Fatalf("two machines differ at %d", x.Applied())
		}
		again := New()
		if err := again.Restore(bytes.NewReader(snapshotBytes(t, x))); err != nil || hashOf(again) != hashOf(x) {
			t.Fatalf("what was applied cannot be restored: %v", err)
		}
	})
}

// ofEveryKind gives a command of each kind with the body.
func ofEveryKind(body []byte) [][]byte {
	var out [][]byte
	for _, k := range Kinds() {
		out = append(out, Command{ID: "fuzz " + string(k), Kind: k, Time: 5, Body: body}.Encode())
	}
	return out
}

// FuzzRestore feeds snapshot streams, also with a right checksum at their end: nothing panics, an error is of code
// StateCorrupt and leaves the state as it was, and what was taken in can be worked with.
func FuzzRestore(f *testing.F) {
	m := three(f)
	m.activate(1, "blog")
	m.start(2, "blog")
	stream := snapshotBytes(f, m.f)
	f.Add([]byte(nil))
	f.Add(stream)
	f.Add(stream[:len(stream)-37])
	f.Add(rec(recordHead, encode(snapshotHead{Version: 1, Applied: 9, Now: 1 << 62})))
	work := [][]byte{}
	for _, b := range []Body{creation(3, "blog"), StepReport{StepKey: StepKey{nth(2), PhasePullingSource, 1, "n1"}}, NodeRemove{ID: "n2"},
		DeploymentCancel{ID: nth(2)}, TokenCreate{Token: token("t2", "ci")}, ProjectDelete{Name: "blog"}, Checkpoint{}} {
		work = append(work, m.stamp(b).Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		for _, s := range [][]byte{b, append(bytes.Clone(b), rec(recordEnd, sum[:])...)} {
			x := New()
			x.Apply(1, 1, EncodeEntry([][]byte{m.stamp(ProjectCreate{Name: "kept"}).Encode()}))
			before := hashOf(x)
			err := x.Restore(bytes.NewReader(s))
			if err != nil && (errs.CodeOf(err) != errs.StateCorrupt || hashOf(x) != before || x.Applied() != 1) {
				t.Fatalf("%v: the state changed", err)
			}
			x.Apply(x.Applied()+1, 1, EncodeEntry(work))
			snapshotBytes(t, x)
		}
	})
}
