package static

import (
	"os"
	"path/filepath"
	"testing"
)

// A name is synced once by each process, and again when it names something else or is not where it was.
func TestDurableNames(t *testing.T) {
	dir := t.TempDir()
	var d durable
	a, below := filepath.Join(dir, "a"), filepath.Join(dir, "a", "b")
	gone := filepath.Join(dir, "gone", "x")
	if err := d.ensure(a, "1"); err != nil {
		t.Fatal(err)
	}
	if d.ensure(gone, "") == nil {
		t.Fatal("a directory that cannot be synced is no success")
	}
	d.note(gone, "")
	if err := d.ensure(gone, ""); err != nil {
		t.Fatalf("a name that is known is synced again: %v", err)
	}
	if d.ensure(gone, "other") == nil {
		t.Fatal("a name that names something else is not synced")
	}
	d.note(below, "")
	d.changing(gone)
	if d.ensure(gone, "") == nil {
		t.Fatal("a name that was changed is not synced")
	}
	d.forget(a)
	if len(d.names) != 0 {
		t.Fatalf("left are %v", d.names)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if d.ensure(a, "1") == nil {
		t.Fatal("a forgotten name is not synced")
	}
}
