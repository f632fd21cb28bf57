package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kontiki/errs"
)

// folder makes a directory with files of the given paths.
func folder(t *testing.T, paths ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range paths {
		name := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(p), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func names(files []File) []string {
	var out []string
	for _, f := range files {
		out = append(out, f.Path)
	}
	return out
}

func TestPackIsDeterministic(t *testing.T) {
	paths := []string{"index.html", "b/z", "b/a", "b.txt", "ü/ö"}
	var packed [2]bytes.Buffer
	for i := range packed {
		dir := folder(t, paths...)
		when := time.Unix(int64(1_000_000*i), 0)
		if err := os.Chtimes(filepath.Join(dir, "b.txt"), when, when); err != nil {
			t.Fatal(err)
		}
		info, err := Pack(t.Context(), dir, &packed[i])
		if err != nil || info.Files != 5 || info.Bytes != 10+3+3+5+5 {
			t.Fatalf("%+v %v", info, err)
		}
	}
	if !bytes.Equal(packed[0].Bytes(), packed[1].Bytes()) {
		t.Fatal("equal folders, other bytes")
	}
	m := mustBuild(t, asFile(t, packed[0].Bytes()), TarGzip)
	if diff := cmp.Diff([]string{"b.txt", "b/a", "b/z", "index.html", "ü/ö"}, names(m.Files)); diff != "" {
		t.Fatal(diff)
	}
}

func TestListHonoursIgnoreFile(t *testing.T) {
	dir := folder(t, "index.html", ".git/config", "sub/.git", "node_modules/x/index.js", "a.log", "keep.log", "deep/a.log",
		"build/out", "src/build/out", "docs/a.md", "docs/x/b.md", "#note")
	rules := "# comment\r\n\n*.log\n!keep.log\nnode_modules/\n/build\ndocs/**/*.md\n\\#note\n"
	if err := os.WriteFile(filepath.Join(dir, ignoreFile), []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	// What is left out is not looked at: a link in there does no harm.
	if err := os.Symlink("/etc", filepath.Join(dir, "node_modules", "link")); err != nil {
		t.Fatal(err)
	}
	files, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"index.html", "keep.log", "src/build/out"}, names(files)); diff != "" {
		t.Fatal(diff)
	}
}

func TestIgnorePatterns(t *testing.T) {
	for _, c := range []struct {
		rules, path string
		dir, want   bool
	}{
		{"a", "a", false, true},
		{"a", "x/a", false, true},
		{"a", "ab", false, false},
		{"/a", "x/a", false, false},
		{"x/a", "x/a", false, true},
		{"x/a", "y/x/a", false, false},
		{"a/", "a", false, false},
		{"a/", "a", true, true},
		{"*.js", "x/y.js", false, true},
		{"?.js", "ab.js", false, false},
		{"a*c", "a/c", false, false},
		{"[ab].js", "b.js", false, true},
		{"**/a", "x/y/a", false, true},
		{"**/a", "a", false, true},
		{"x/**", "x", true, false},
		{"x/**", "x/y/z", false, true},
		{"x/**/z", "x/z", false, true},
		{"x/**/z", "x/a/b/z", false, true},
		{"x/**/z", "xz", false, false},
		{"**", "anything/at/all", false, true},
		{"*\n!a", "a", false, false},
		{"!a\n*", "a", false, true},
		{`\!a`, "!a", false, true},
		{"a  ", "a", false, true},
		{`a\ `, "a ", false, true},
		{strings.Repeat("**/", 60) + "q", strings.Repeat("a/", 60) + "b", false, false},
	} {
		rules, err := parseIgnores([]byte(c.rules))
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.match(c.path, c.dir); got != c.want {
			t.Errorf("%q on %q: %v", c.rules, c.path, got)
		}
	}
	for _, bad := range []string{"ok\n[a", "!", "/", strings.Repeat("x", 1<<17)} {
		if _, err := parseIgnores([]byte(bad)); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	if _, err := parseIgnores([]byte("ok\n[a")); !strings.Contains(err.Error(), ".kontikiignore:2") {
		t.Error("the line is not named:", err)
	}
}

func TestPackRefusesWhatNoNodeWouldTake(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"symbolic link": func(d string) error { return os.Symlink("index.html", d+"/odd") },
		"FIFO":          func(d string) error { return syscall.Mkfifo(d+"/odd", 0o644) },
		"backslash":     func(d string) error { return os.WriteFile(d+`/odd\name`, nil, 0o644) },
		"control":       func(d string) error { return os.WriteFile(d+"/odd\nname", nil, 0o644) },
	} {
		dir := folder(t, "index.html")
		if err := make(dir); err != nil {
			t.Fatal(err)
		}
		_, err := Pack(t.Context(), dir, io.Discard)
		if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "odd") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPackFailures(t *testing.T) {
	if _, err := Pack(t.Context(), filepath.Join(t.TempDir(), "none"), io.Discard); err == nil {
		t.Error("an absent folder was packed")
	}
	dir := folder(t, "index.html")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Pack(ctx, dir, io.Discard); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := Pack(t.Context(), dir, full); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if err := packFile(nil, dir, File{Path: "index.html", Size: 99}); errs.CodeOf(err) != errs.Conflict {
		t.Error(err)
	}
}
