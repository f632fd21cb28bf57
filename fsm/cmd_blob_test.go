package fsm

import (
	"strings"
	"testing"

	"kontiki/errs"
)

func held(b *Blob) string {
	if b == nil {
		return "nobody"
	}
	return strings.Join(b.Nodes, " ")
}

func TestBlobHeld(t *testing.T) {
	m := three(t)
	d := digest("a blob")
	for _, c := range []struct {
		body BlobHeld
		want string
		size int64
	}{
		{BlobHeld{Digest: d, Size: 0, Node: "n3"}, "n3", 0},
		{BlobHeld{Digest: d, Size: 7, Node: "n1"}, "n1 n3", 7},
		{BlobHeld{Digest: d, Size: 0, Node: "n1"}, "n1 n3", 7},
		{BlobHeld{Digest: d, Size: 9, Node: "n2"}, "n1 n2 n3", 7},
		{BlobHeld{Digest: d, Node: "n1", Gone: true}, "n2 n3", 7},
		{BlobHeld{Digest: d, Node: "n1", Gone: true}, "n2 n3", 7},
		{BlobHeld{Digest: d, Node: "n2", Gone: true}, "n3", 7},
	} {
		m.ok(c.body)
		b := m.state().Blob(d)
		if held(b) != c.want || b.Size != c.size {
			t.Fatalf("after %+v: %+v", c.body, b)
		}
	}
	m.ok(BlobHeld{Digest: d, Node: "n3", Gone: true})
	if b := m.state().Blob(d); b != nil {
		t.Errorf("a blob that nobody has is remembered: %+v", b)
	}
	m.ok(BlobHeld{Digest: d, Node: "n3", Gone: true})
}

func TestBlobHeldKnowsASizeOnceItIsTold(t *testing.T) {
	m := three(t)
	m.ok(BlobHeld{Digest: digest("x"), Node: "n1"})
	m.ok(BlobHeld{Digest: digest("x"), Node: "n1", Size: 12})
	if b := m.state().Blob(digest("x")); b.Size != 12 || b.ModifyIndex != m.index {
		t.Errorf("blob is %+v", b)
	}
	m.ok(BlobHeld{Digest: digest("x"), Node: "n1", Size: 12})
	if b := m.state().Blob(digest("x")); b.ModifyIndex == m.index {
		t.Error("news that is none changed the blob")
	}
}

func TestBlobHeldRefusals(t *testing.T) {
	m := three(t)
	m.refuse(errs.NotFound, BlobHeld{Digest: digest("x"), Node: "n9"})
	m.refuse(errs.BadCommand, BlobHeld{Digest: "", Node: "n1"})
	m.refuse(errs.BadCommand, BlobHeld{Digest: "sha256:../../../etc/passwd", Node: "n1"})
	m.refuse(errs.BadCommand, BlobHeld{Digest: digest("x"), Size: -1, Node: "n1"})
}
