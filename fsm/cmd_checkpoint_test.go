package fsm

import (
	"context"
	"testing"
	"time"

	"kontiki/errs"
)

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestCheckpointKeepsTheHashOfItsIndex(t *testing.T) {
	m := three(t)
	before := m.objects()
	m.ok(Checkpoint{})
	if m.objects() != before {
		t.Error("a checkpoint changed an object")
	}
	at, want := m.index, m.hash()
	m.ok(ProjectCreate{Name: "blog"})
	got, err := m.f.HashAt(soon(t), at)
	if err != nil || got != want || got == m.hash() {
		t.Errorf("hash at %d is %s (%v), was %s", at, got, err, want)
	}
	if _, err := m.f.HashAt(soon(t), m.index); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an index without checkpoint gives %v", err)
	}
}

func TestOldCheckpointsAreForgotten(t *testing.T) {
	m := three(t)
	m.ok(Checkpoint{})
	oldest := m.index
	for range 8 {
		if _, err := m.f.HashAt(soon(t), oldest); err != nil {
			t.Fatal(err)
		}
		m.ok(Checkpoint{})
	}
	if _, err := m.f.HashAt(soon(t), oldest); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("the ninth checkpoint back gives %v", err)
	}
	if _, err := m.f.HashAt(soon(t), m.index); err != nil {
		t.Error(err)
	}
}

func TestHashAtWaitsForItsIndex(t *testing.T) {
	m := three(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.f.HashAt(gone, m.index+1); err == nil {
		t.Error("the hash of an index to come was given")
	}
	type answer struct {
		hash string
		err  error
	}
	answers := make(chan answer, 1)
	ctx, at := soon(t), m.index+1
	go func() {
		h, err := m.f.HashAt(ctx, at)
		answers <- answer{h, err}
	}()
	m.ok(Checkpoint{})
	if a := <-answers; a.err != nil || a.hash != m.hash() {
		t.Errorf("hash is %s, %v", a.hash, a.err)
	}
}
