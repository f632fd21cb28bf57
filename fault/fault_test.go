package fault

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func disarm(t *testing.T) {
	t.Helper()
	if err := Arm("", ""); err != nil {
		t.Fatal(err)
	}
}

func TestInertWhenNothingIsArmed(t *testing.T) {
	disarm(t)
	if err := Point("x"); err != nil {
		t.Fatal(err)
	}
}

func TestErrorFiresOnceAndLeavesItsMarks(t *testing.T) {
	dir := t.TempDir()
	if err := Arm("a.before=error", dir); err != nil {
		t.Fatal(err)
	}
	defer disarm(t)
	if err := Point("a.before"); !errors.Is(err, ErrInjected) {
		t.Fatalf("first: %v", err)
	}
	if err := Point("a.before"); err != nil {
		t.Fatalf("second: %v", err)
	}
	if err := Point("b.after"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"a.before.reached", "a.before.fired", "b.after.reached"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
}

func TestHoldWaitsForItsRelease(t *testing.T) {
	dir := t.TempDir()
	if err := Arm("h=hold", dir); err != nil {
		t.Fatal(err)
	}
	defer disarm(t)
	done := make(chan error, 1)
	go func() { done <- Point("h") }()
	if err := os.WriteFile(filepath.Join(dir, "h.release"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestArmRefusesNonsense(t *testing.T) {
	defer disarm(t)
	for _, spec := range []string{"a", "a=explode"} {
		if Arm(spec, t.TempDir()) == nil {
			t.Errorf("%q accepted", spec)
		}
	}
	if Arm("a=kill", "") == nil {
		t.Error("no directory accepted")
	}
}
