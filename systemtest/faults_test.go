package systemtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A process learns what to do at its fault points when it starts, and does it when it comes by and there is no mark yet
// that it was done. So nodes are started with an action at every point and all marks made; a point is armed, while the
// node runs, by taking its mark away. After it fired the mark is there again, for the node's next process too.

func (n *node) faultFile(point, kind string) string {
	return filepath.Join(n.dir, "faults", point+"."+kind)
}

// faultEnv makes the environment of a node that does action at the points when they are armed.
func (n *node) faultEnv(t testing.TB, actions map[string]string) []string {
	t.Helper()
	var spec []string
	for point, action := range actions {
		spec = append(spec, point+"="+action)
		n.touch(t, point, "fired")
	}
	return []string{"KONTIKI_FAULT=" + strings.Join(spec, ","), "KONTIKI_FAULT_DIR=" + filepath.Join(n.dir, "faults")}
}

func (n *node) touch(t testing.TB, point, kind string) {
	t.Helper()
	if err := os.WriteFile(n.faultFile(point, kind), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *node) arm(t testing.TB, point string) {
	t.Helper()
	for _, kind := range []string{"release", "fired"} {
		if err := os.Remove(n.faultFile(point, kind)); err != nil && (kind == "fired" || !errors.Is(err, fs.ErrNotExist)) {
			t.Fatal(err)
		}
	}
}

// awaitFired waits until the node has come by an armed point.
func (n *node) awaitFired(t testing.TB, point string) { t.Helper(); n.awaitMark(t, point, "fired") }

func (n *node) awaitMark(t testing.TB, point, kind string) {
	t.Helper()
	await(t, "node "+n.name+" comes by "+point, 40*time.Second, func() error {
		_, err := os.Stat(n.faultFile(point, kind))
		return err
	})
}

// reached gives the points the node came by since its directory was made.
func (n *node) reached(t testing.TB) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.dir, "faults"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		if point, ok := strings.CutSuffix(e.Name(), ".reached"); ok {
			found[point] = true
		}
	}
	return found
}
