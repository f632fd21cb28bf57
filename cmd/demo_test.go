package cmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The demo is the main job: it runs here as it does for users, with three processes of this binary.
func TestDemo(t *testing.T) {
	t.Setenv(asKontiki, "1")
	t.Setenv("TMPDIR", t.TempDir())
	code, out, said := kontiki(t, "demo")
	if code != ExitOK {
		t.Fatalf("exit code %d\n%s\n%s", code, said, out)
	}
	for _, want := range []string{"three voting nodes", "SIGKILL for the leader", "100 %  active", "is started again", "serves the second edition"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not told:\n%s", want, said)
		}
	}
	for _, want := range []string{"copying_files", " 0 failed", "equal on all three nodes", "903 of 903 files right"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the table:\n%s", want, out)
		}
	}
	wantNothingLeft(t)
}

func TestTheDemoCleansUpWhenItIsInterrupted(t *testing.T) {
	t.Setenv(asKontiki, "1")
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	said := &cancelAt{word: "node n1 runs", cancel: cancel}
	env := Env{In: strings.NewReader(""), Out: &out, Err: said, Getenv: func(string) string { return "" }}
	if code := Execute(ctx, []string{"demo"}, env); code != ExitInterrupted {
		t.Errorf("exit code %d:\n%s%s", code, &said.text, &out)
	}
	wantNothingLeft(t)
}

// cancelAt cancels as soon as a word is written to it.
type cancelAt struct {
	text   bytes.Buffer
	word   string
	cancel func()
}

func (c *cancelAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.word) {
		c.cancel()
	}
	return c.text.Write(p)
}

// wantNothingLeft looks for files and processes of a demo that is over.
func wantNothingLeft(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range processes {
		line, err := os.ReadFile(file)
		if err == nil && bytes.Contains(line, []byte(os.Getenv("TMPDIR")+"/kontiki-demo-")) {
			t.Errorf("still running: %q", line)
		}
	}
}
