package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kontiki/errs"
	"kontiki/fault"
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

// knowing gives a state that knows one deployment.
func knowing(t *testing.T, id string) *fsm.State {
	t.Helper()
	f := fsm.New()
	spec := fsm.DefaultSpec()
	for i, b := range []fsm.Body{
		fsm.ClusterInit{ID: "c1", Settings: fsm.DefaultSettings(), Node: fsm.Node{ID: "n1"}, Token: fsm.Token{ID: "t1", Name: "root", Hash: []byte("x")}},
		fsm.DeploymentCreate{ID: id, Project: "hello", Create: true, Spec: spec, Nodes: []string{"n1"},
			Source: fsm.Source{Type: fsm.SourceUpload, Digest: "sha256:" + strings.Repeat("0", 64), Size: 1, Format: "tar"}},
	} {
		if r := f.Apply(uint64(i+1), 1, fsm.EncodeEntry([][]byte{fsm.NewCommand(b, "test").Encode()}))[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return f.State()
}

// The logs of deployments that are forgotten go, a part of them at a time; what is known, what is not ours and, while the
// state is empty, everything stays. A removal that was cut off is gone on with.
func TestLogsOfForgottenDeploymentsGo(t *testing.T) {
	l := &stepLogs{dir: filepath.Join(t.TempDir(), "logs"), node: "n1"}
	known := fsm.NewID()
	state := func() *fsm.State { return knowing(t, known) }
	if err := l.sweep(state); err != nil {
		t.Fatalf("no folder yet: %v", err)
	}
	for i := range 21 {
		id := fsm.NewID()
		if i == 0 {
			id = known
		}
		w, err := l.Create(id, fsm.PhaseBuilding, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"notes.log", fsm.NewID() + ".txt"} {
		if err := os.WriteFile(filepath.Join(l.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func(want int) {
		t.Helper()
		entries, err := os.ReadDir(l.dir)
		if err != nil || len(entries) != want {
			t.Fatalf("%d files are left, want %d: %v", len(entries), want, err)
		}
	}
	if err := l.sweep(func() *fsm.State { return fsm.New().State() }); err != nil {
		t.Fatal(err)
	}
	left(23)
	for point, want := range map[string]int{"node.logs.remove.before": 0, "node.logs.remove.after": 1} {
		if err := fault.Arm(point+"=error", t.TempDir()); err != nil {
			t.Fatal(err)
		}
		entries, _ := os.ReadDir(l.dir) // left looks at the error
		if err := l.sweep(state); err == nil {
			t.Errorf("the error at %s is lost", point)
		}
		left(len(entries) - want)
	}
	if err := fault.Arm("", ""); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := l.sweep(state); err != nil {
			t.Fatal(err)
		}
	}
	left(3)
	if _, err := os.Stat(filepath.Join(l.dir, known+".log")); err != nil {
		t.Error(err)
	}
}
