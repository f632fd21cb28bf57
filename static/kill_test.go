package static

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// points is every fault point of this package that a redeploy passes.
var points = []string{
	"static.extract.before", "static.extract.after", "static.release.rename.before", "static.release.rename.after",
	"static.current.before", "static.current.flip", "static.current.after",
	"static.webroot.before", "static.webroot.after", "static.remove.before", "static.remove.after",
}

// whole makes D2 the release of p after D1 and removes D1.
func whole(ctx context.Context, s *Sites) error {
	for _, d := range []string{"D1", "D2"} {
		if current, err := s.Current("p"); err == nil && current == "D2" {
			break // D1 may be gone already
		}
		f := siteOf(d)
		if err := s.EnsureRelease(ctx, "p", d, f.manifest(), f.extract); err != nil {
			return err
		}
		if err := s.EnsureCurrent(ctx, "p", d); err != nil {
			return err
		}
	}
	return errors.Join(s.EnsureWebroot(ctx, "p"), s.RemoveRelease(ctx, "p", "D1"))
}

const killedData = "KONTIKI_TEST_KILLED_DATA"

// TestKilledRun is the process that dies; on its own it does nothing.
func TestKilledRun(t *testing.T) {
	data := os.Getenv(killedData)
	if data == "" {
		return
	}
	s, err := Open(data, &countingSync{})
	if err != nil {
		t.Fatal(err)
	}
	if err := whole(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func TestSIGKILLAtEveryPointThenEnsureAgain(t *testing.T) {
	for _, point := range points {
		data, marks := t.TempDir(), t.TempDir()
		run := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledRun$")
		run.Env = append(os.Environ(), killedData+"="+data, "KONTIKI_FAULT="+point+"=kill", "KONTIKI_FAULT_DIR="+marks)
		out, err := run.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: %v %s", point, err, out)
		}
		if _, err := os.Stat(filepath.Join(marks, point+".fired")); err != nil {
			t.Fatal(err)
		}
		s := openSites(t, data)
		wantTidy(t, data)
		if err := whole(t.Context(), s); err != nil {
			t.Fatalf("after %s: %v", point, err)
		}
		wantInventory(t, s, Inventory{Project: "p", Releases: []string{"D2"}, Current: "D2", Webroot: true})
		wantTidy(t, data)
	}
}
