package static

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/source"
)

// countingSync is a Syncer that only counts.
type countingSync struct {
	mu    sync.Mutex
	calls int
	err   error
}

func (c *countingSync) Sync(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	return c.err
}

func openSites(t testing.TB, data string) *Sites {
	t.Helper()
	s, err := Open(data, &countingSync{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// files is a release's content by path.
type files map[string]string

// siteOf is a release whose every file tells its deployment.
func siteOf(deployment string) files {
	return files{"index.html": "index of " + deployment, "a/b.css": "style of " + deployment, "404.html": "no such page in " + deployment}
}

func (f files) manifest() source.Manifest {
	m := source.Manifest{Kind: source.KindStatic}
	for path, body := range f {
		sum := sha256.Sum256([]byte(body))
		m.Files = append(m.Files, source.File{Path: path, Size: int64(len(body)), Mode: 0o644, SHA256: hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(m.Files, func(a, b source.File) int { return strings.Compare(a.Path, b.Path) })
	return m
}

func (f files) extract(dst string) error {
	for path, body := range f {
		name := filepath.Join(dst, path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func ensure(t testing.TB, s *Sites, project, deployment string) {
	t.Helper()
	f := siteOf(deployment)
	if err := s.EnsureRelease(t.Context(), project, deployment, f.manifest(), f.extract); err != nil {
		t.Fatal(err)
	}
}

// activate does everything a node does for a release.
func activate(t testing.TB, s *Sites, project, deployment string) {
	t.Helper()
	ensure(t, s, project, deployment)
	if err := errors.Join(s.EnsureCurrent(t.Context(), project, deployment), s.EnsureWebroot(t.Context(), project)); err != nil {
		t.Fatal(err)
	}
}

func wantInventory(t *testing.T, s *Sites, want Inventory) {
	t.Helper()
	got, err := s.Inventory(want.Project)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func wantCode(t *testing.T, err error, code errs.Code) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Fatalf("code %q, want %q (%v)", errs.CodeOf(err), code, err)
	}
}

// wantTidy asserts that no temporary of any kind is left.
func wantTidy(t *testing.T, data string) {
	t.Helper()
	err := filepath.WalkDir(data, func(path string, _ os.DirEntry, err error) error {
		base := filepath.Base(path)
		for _, p := range []string{tempPrefix, oldPrefix, linkPrefix} {
			if strings.HasPrefix(base, p) {
				t.Errorf("left over: %s", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLifeOfAProject(t *testing.T) {
	data := t.TempDir()
	s := openSites(t, data)
	wantInventory(t, s, Inventory{Project: "hello"})
	activate(t, s, "hello", "D1")
	activate(t, s, "hello", "D2")
	wantInventory(t, s, Inventory{Project: "hello", Releases: []string{"D1", "D2"}, Current: "D2", Webroot: true})
	body, err := os.ReadFile(filepath.Join(data, "www", "hello", "index.html"))
	if err != nil || string(body) != "index of D2" {
		t.Fatalf("through the links: %q %v", body, err)
	}
	wantCode(t, s.RemoveRelease(t.Context(), "hello", "D2"), errs.Conflict)
	for range 2 {
		if err := s.RemoveRelease(t.Context(), "hello", "D1"); err != nil {
			t.Fatal(err)
		}
	}
	wantInventory(t, s, Inventory{Project: "hello", Releases: []string{"D2"}, Current: "D2", Webroot: true})
	for range 2 {
		if err := s.RemoveProject(t.Context(), "hello"); err != nil {
			t.Fatal(err)
		}
	}
	wantInventory(t, s, Inventory{Project: "hello"})
	if left, err := os.ReadDir(filepath.Join(data, "static")); err != nil || len(left) != 0 {
		t.Fatalf("%v %v", left, err)
	}
	if err := s.RemoveRelease(t.Context(), "hello", "D1"); err != nil {
		t.Fatal("absent is a success:", err)
	}
}

func TestEnsureReleaseDoesNothingTwice(t *testing.T) {
	syncer := &countingSync{}
	s, err := Open(t.TempDir(), syncer)
	if err != nil {
		t.Fatal(err)
	}
	ensure(t, s, "p", "D")
	f := siteOf("D")
	for _, again := range []func(context.Context, string, string, source.Manifest, func(string) error) error{s.EnsureRelease, s.RepairRelease} {
		if err := again(t.Context(), "p", "D", f.manifest(), func(string) error { return errors.New("extracted again") }); err != nil {
			t.Fatal(err)
		}
	}
	if syncer.calls != 1 {
		t.Fatalf("%d syncs", syncer.calls)
	}
}

func TestWrongReleasesAreReplaced(t *testing.T) {
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(dir string) error{
		"file missing": func(d string) error { return os.Remove(d + "/a/b.css") },
		"file added":   func(d string) error { return os.WriteFile(d+"/x", nil, 0o644) },
		"file changed": func(d string) error { return os.WriteFile(d+"/index.html", []byte("INDEX OF D"), 0o644) },
		"file cut":     func(d string) error { return os.Truncate(d+"/index.html", 1) },
		"removed":      os.RemoveAll,
		"a file":       func(d string) error { return errors.Join(os.RemoveAll(d), os.WriteFile(d, nil, 0o644)) },
		"a link":       func(d string) error { return errors.Join(os.RemoveAll(d), os.Symlink(outside, d)) },
		"a link in it": func(d string) error { return errors.Join(os.RemoveAll(d+"/a"), os.Symlink(outside, d+"/a")) },
		"read-only":    func(d string) error { return os.Chmod(d+"/a", 0o500) },
	} {
		data := t.TempDir()
		s := openSites(t, data)
		activate(t, s, "p", "D")
		if err := spoil(filepath.Join(data, "static", "p", "releases", "D")); err != nil {
			t.Fatal(err)
		}
		f := siteOf("D")
		if err := s.RepairRelease(t.Context(), "p", "D", f.manifest(), f.extract); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := source.VerifyTree(filepath.Join(data, "static", "p", "releases", "D"), f.manifest(), true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantInventory(t, s, Inventory{Project: "p", Releases: []string{"D"}, Current: "D", Webroot: true})
		wantTidy(t, data)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Fatal("a link was followed:", err)
	}
}

func TestExchangeOnAFileSystemThatCannot(t *testing.T) {
	dir := t.TempDir()
	temp, final := filepath.Join(dir, ".tmp-D-1"), filepath.Join(dir, "D")
	if err := errors.Join(siteOf("new").extract(temp), siteOf("old").extract(final), exchangeByRenames(temp, final)); err != nil {
		t.Fatal(err)
	}
	for path, release := range map[string]string{final: "new", temp: "old"} {
		if err := source.VerifyTree(path, siteOf(release).manifest(), true); err != nil {
			t.Errorf("%s: %v", release, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Fatalf("%v %v", left, err)
	}
}

func TestFailedReleasesLeaveNothing(t *testing.T) {
	data, f := t.TempDir(), siteOf("D")
	syncer := &countingSync{}
	s, err := Open(data, syncer)
	if err != nil {
		t.Fatal(err)
	}
	full := func(dst string) error {
		_ = f.extract(dst)
		return source.DiskError(syscall.ENOSPC, "extract")
	}
	wantCode(t, s.EnsureRelease(t.Context(), "p", "D", f.manifest(), full), errs.DiskFull)
	other := siteOf("other")
	wantCode(t, s.EnsureRelease(t.Context(), "p", "D", f.manifest(), other.extract), errs.Digest)
	syncer.err = errs.New(errs.DiskFull, "sync")
	wantCode(t, s.EnsureRelease(t.Context(), "p", "D", f.manifest(), f.extract), errs.DiskFull)
	wantTidy(t, data)
	wantInventory(t, s, Inventory{Project: "p"})
	wantCode(t, s.EnsureCurrent(t.Context(), "p", "D"), errs.NotFound)
	wantCode(t, s.EnsureCurrent(t.Context(), "q", "D"), errs.NotFound)
	_, err = s.Current("p")
	wantCode(t, err, errs.NotFound)
}

func TestNamesAreCheckedAgain(t *testing.T) {
	s := openSites(t, t.TempDir())
	for _, bad := range []string{"", "-a", "A", "a/b", "..", ".", "a_b", "ä", "a\x00", strings.Repeat("a", 64)} {
		wantCode(t, s.EnsureWebroot(t.Context(), bad), errs.Invalid)
		wantCode(t, s.RemoveProject(t.Context(), bad), errs.Invalid)
		_, err := s.Inventory(bad)
		wantCode(t, err, errs.Invalid)
		_, err = s.Current(bad)
		wantCode(t, err, errs.Invalid)
	}
	for _, bad := range []string{"", "a-b", "../x", "a/b", ".tmp", "ä", strings.Repeat("a", 65)} {
		wantCode(t, s.EnsureRelease(t.Context(), "p", bad, source.Manifest{}, nil), errs.Invalid)
		wantCode(t, s.EnsureCurrent(t.Context(), "p", bad), errs.Invalid)
		wantCode(t, s.RemoveRelease(t.Context(), "p", bad), errs.Invalid)
	}
}

func TestForeignThingsAreMovedAside(t *testing.T) {
	outside := t.TempDir()
	for name, c := range map[string]struct {
		path  string // below the data directory
		put   func(path string) error
		aside bool // it was more than a link
	}{
		"current is a file":      {"static/p/current", func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) }, true},
		"current is a directory": {"static/p/current", func(p string) error { return os.Mkdir(p, 0o755) }, true},
		"current leads outside":  {"static/p/current", func(p string) error { return os.Symlink(outside, p) }, false},
		"current dangles":        {"static/p/current", func(p string) error { return os.Symlink("releases/gone", p) }, false},
		"current loops":          {"static/p/current", func(p string) error { return os.Symlink("current", p) }, false},
		"webroot is a directory": {"www/p", func(p string) error { return os.Mkdir(p, 0o755) }, true},
		"webroot leads outside":  {"www/p", func(p string) error { return os.Symlink(outside, p) }, false},
		"releases leads outside": {"static/p/releases", func(p string) error { return os.Symlink(outside, p) }, true},
		"project leads outside":  {"static/p", func(p string) error { return os.Symlink(outside, p) }, true},
		"project is a file":      {"static/p", func(p string) error { return os.WriteFile(p, nil, 0o600) }, true},
	} {
		data := t.TempDir()
		s := openSites(t, data)
		activate(t, s, "p", "D")
		path := filepath.Join(data, c.path)
		if err := errors.Join(os.RemoveAll(path), c.put(path)); err != nil {
			t.Fatal(err)
		}
		activate(t, s, "p", "D")
		wantInventory(t, s, Inventory{Project: "p", Releases: []string{"D"}, Current: "D", Webroot: true})
		wantTidy(t, data)
		aside, err := filepath.Glob(filepath.Join(filepath.Dir(path), asidePrefix+filepath.Base(path)+"-*"))
		if err != nil || (len(aside) == 1) != c.aside {
			t.Errorf("%s: moved aside %v %v", name, aside, err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Fatalf("a link was followed: %v %v", left, err)
	}
}

func TestRemovingDoesNotFollowLinks(t *testing.T) {
	outside := t.TempDir()
	if err := siteOf("D").extract(filepath.Join(outside, "releases", "D")); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	s := openSites(t, data)
	if err := os.Symlink(outside, filepath.Join(data, "static", "p")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(data, "www", "p")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.RemoveRelease(t.Context(), "p", "D"), s.RemoveProject(t.Context(), "p")); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{outside + "/releases/D/index.html", data + "/www/p", data + "/static/p"} {
		if _, err := os.Lstat(kept); err != nil {
			t.Error("not ours, but gone:", err)
		}
	}
	if _, err := Open(data, &countingSync{}); err != nil {
		t.Fatal(err)
	}
}

// Every point where a run can break off, with an error here; kill_test.go does it with SIGKILL.
func TestInjectedErrorsThenEnsureAgain(t *testing.T) {
	for _, point := range points {
		data := t.TempDir()
		s := openSites(t, data)
		if err := fault.Arm(point+"=error", t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if err := whole(t.Context(), s); !errors.Is(err, fault.ErrInjected) {
			t.Fatalf("%s did not fire: %v", point, err)
		}
		if err := fault.Arm("", ""); err != nil {
			t.Fatal(err)
		}
		if err := whole(t.Context(), s); err != nil {
			t.Fatalf("after %s: %v", point, err)
		}
		wantInventory(t, s, Inventory{Project: "p", Releases: []string{"D2"}, Current: "D2", Webroot: true})
		wantTidy(t, data)
	}
}

func TestWaitingForAProjectEndsWithTheContext(t *testing.T) {
	s := openSites(t, t.TempDir())
	leave, err := s.enter(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.EnsureWebroot(ctx, "p"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := s.EnsureWebroot(t.Context(), "q"); err != nil {
		t.Fatal("another project does not wait:", err)
	}
	leave()
	if len(s.locks.held) != 0 {
		t.Fatalf("locks are kept: %v", s.locks.held)
	}
}

func BenchmarkEnsureActivate(b *testing.B) {
	s := openSites(b, b.TempDir())
	f := files{}
	for i := range 20 {
		f[fmt.Sprintf("f%d.html", i)] = strings.Repeat("x", 2000)
	}
	m := f.manifest()
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprintf("D%d", i)
		if err := errors.Join(s.EnsureRelease(b.Context(), "p", id, m, f.extract), s.EnsureCurrent(b.Context(), "p", id)); err != nil {
			b.Fatal(err)
		}
	}
}
