package node

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kontiki/errs"
	"kontiki/fsm"
)

func TestStepLogs(t *testing.T) {
	l := &stepLogs{dir: filepath.Join(t.TempDir(), "logs"), node: "n1"}
	id := fsm.NewID()
	if lines, err := l.read(id); err != nil || lines != nil {
		t.Fatalf("before anything was written: %v %v", lines, err)
	}
	for i, phase := range []fsm.Phase{fsm.PhaseBuilding, fsm.PhaseCopyingFiles} {
		w, err := l.Create(id, phase, i+1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(w, "2026-01-02T03:04:05.678Z info line of %s\n", phase); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(l.dir, id+".log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("2026-01-02T03:04"); err != nil { // a crash cut it short
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	lines, err := l.read(id)
	if err != nil || len(lines) != 2 {
		t.Fatalf("%v %v", lines, err)
	}
	if got := lines[1]; got.Phase != fsm.PhaseCopyingFiles || got.Attempt != 2 || got.Node != "n1" || got.Line != "info line of copying_files" || got.At != 1767323045678 {
		t.Fatalf("%+v", got)
	}
	for _, bad := range []string{"", "..", "../x", id + "/../x"} {
		if _, err := l.Create(bad, fsm.PhaseBuilding, 1); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := l.read(bad); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
