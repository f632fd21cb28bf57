package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kontiki/errs"
)

func mustBuild(t testing.TB, file *os.File, format Format) Manifest {
	t.Helper()
	m, err := Build(t.Context(), file, format, DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOneSiteHasOneManifestInEveryFormat(t *testing.T) {
	var want []byte
	for format, b := range formats(t, site()) {
		m := mustBuild(t, asFile(t, b), format)
		if want == nil {
			want = m.Encode()
		}
		if !bytes.Equal(m.Encode(), want) {
			t.Errorf("%s: %s, another format gave %s", format, m.Encode(), want)
		}
		back, err := DecodeManifest(m.Encode())
		if err != nil || !back.Equal(m) {
			t.Fatalf("%v: %s", err, cmp.Diff(m, back))
		}
	}
}

func TestSiteRoot(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		root  string
		none  string // what the refusal has to mention
	}{
		"top":              {[]string{"index.html", "a/index.html"}, "", ""},
		"one directory":    {[]string{"site/index.html", "site/a/b"}, "site", ""},
		"hidden beside it": {[]string{"site/index.html", ".DS_Store", "__MACOSX/site/._x", ".github/x"}, "site", ""},
		"two directories":  {[]string{"a/index.html", "b/x"}, "", "a/, b/"},
		"file beside it":   {[]string{"a/index.html", "README.md"}, "", "README.md, a/"},
		"too deep":         {[]string{"a/b/index.html"}, "", "in a/"},
		"other name":       {[]string{"index.htm"}, "", "holds index.htm"},
		"only hidden":      {[]string{".x/index.html"}, "", "nothing but hidden"},
		"many":             {strings.Split("a b c d e f g h i j", " "), "", "and 2 more"},
	} {
		var items []item
		for _, f := range c.files {
			items = append(items, item{name: f, body: f})
		}
		m, err := Build(t.Context(), asFile(t, tarOf(t, items...)), Tar, DefaultLimits)
		if c.none != "" {
			if errs.CodeOf(err) != errs.NoIndex || !strings.Contains(err.Error(), c.none) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || m.Root != c.root {
			t.Errorf("%s: root %q %v", name, m.Root, err)
		}
		for _, f := range m.Files {
			if c.root != "" && strings.HasPrefix(f.Path, ".") {
				t.Errorf("%s: %q is not below the root", name, f.Path)
			}
		}
	}
}

func TestDecodeManifestTrustsNothing(t *testing.T) {
	sum := strings.Repeat("a", 64)
	file := func(path, more string) string {
		return fmt.Sprintf(`{"path":%q,"size":1,"mode":420,"sha256":%q%s}`, path, sum, more)
	}
	for name, c := range map[string]string{
		"not JSON":     `{"root"`,
		"trailing":     `{"root":"","kind":"static","files":[]} {}`,
		"kind":         `{"root":"","kind":"other","files":[]}`,
		"root":         `{"root":"../x","kind":"static","files":[]}`,
		"escape":       `{"kind":"static","files":[` + file("../x", "") + `]}`,
		"absolute":     `{"kind":"static","files":[` + file("/x", "") + `]}`,
		"unsorted":     `{"kind":"static","files":[` + file("b", "") + `,` + file("a", "") + `]}`,
		"twice":        `{"kind":"static","files":[` + file("a", "") + `,` + file("a", "") + `]}`,
		"file and dir": `{"kind":"static","files":[` + file("a", "") + `,` + file("a/b", "") + `]}`,
		"size":         `{"kind":"static","files":[` + file("a", `,"size":-1`) + `]}`,
		"mode":         `{"kind":"static","files":[` + file("a", `,"mode":2541`) + `]}`,
		"hash":         `{"kind":"static","files":[` + file("a", `,"sha256":"zz"`) + `]}`,
	} {
		if _, err := DecodeManifest([]byte(c)); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtractWritesExactlyTheManifest(t *testing.T) {
	old := syscall.Umask(0o077) // what an operator's shell may have set must not show
	defer syscall.Umask(old)
	items := append(site(), item{name: "./.hidden/x", body: "x"})
	for format, b := range formats(t, items) {
		file := asFile(t, b)
		m := mustBuild(t, file, format)
		dst := filepath.Join(t.TempDir(), "release")
		if err := Extract(t.Context(), file, format, m, dst); err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if err := os.Chmod(dst, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := VerifyTree(dst, m, true); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		wantCode(t, Extract(t.Context(), file, format, m, dst), errs.Conflict)
	}
}

func TestExtractTakesOnlyWhatIsBelowTheRoot(t *testing.T) {
	file := asFile(t, tarOf(t, item{name: "site/index.html", body: "x"}, item{name: ".env", body: "secret"}))
	m := mustBuild(t, file, Tar)
	dst := t.TempDir()
	if err := Extract(t.Context(), file, Tar, m, dst); err != nil {
		t.Fatal(err)
	}
	if err := VerifyTree(dst, m, true); err != nil {
		t.Fatal(err)
	}
}

func TestExtractRefusesAnotherArchive(t *testing.T) {
	m := mustBuild(t, asFile(t, tarOf(t, item{name: "index.html", body: "one"}, item{name: "b", body: "b"})), Tar)
	for name, items := range map[string][]item{
		"content": {{name: "index.html", body: "two"}, {name: "b", body: "b"}},
		"longer":  {{name: "index.html", body: "one more"}, {name: "b", body: "b"}},
		"shorter": {{name: "index.html", body: "o"}, {name: "b", body: "b"}},
		"missing": {{name: "index.html", body: "one"}},
	} {
		err := Extract(t.Context(), asFile(t, tarOf(t, items...)), Tar, m, filepath.Join(t.TempDir(), "r"))
		if errs.CodeOf(err) != errs.Digest {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := m
	bad.Files = []File{{Path: "../x", SHA256: strings.Repeat("a", 64), Mode: 0o644}}
	wantCode(t, Extract(t.Context(), asFile(t, tarOf(t)), Tar, bad, t.TempDir()), errs.Invalid)
}

func TestVerifyTreeFindsEveryDifference(t *testing.T) {
	file := asFile(t, tarOf(t, item{name: "index.html", body: "12345"}, item{name: "a/b", body: "b"}))
	m := mustBuild(t, file, Tar)
	outside := filepath.Join(t.TempDir(), "same")
	if err := os.WriteFile(outside, []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(dir string) error
		deep   bool // found by a deep look only
	}{
		"missing":   {func(d string) error { return os.Remove(d + "/a/b") }, false},
		"extra":     {func(d string) error { return os.WriteFile(d+"/a/c", nil, 0o644) }, false},
		"size":      {func(d string) error { return os.WriteFile(d+"/a/b", nil, 0o644) }, false},
		"mode":      {func(d string) error { return os.Chmod(d+"/a/b", 0o600) }, false},
		"dir mode":  {func(d string) error { return os.Chmod(d+"/a", 0o700) }, false},
		"content":   {func(d string) error { return os.WriteFile(d+"/index.html", []byte("54321"), 0o644) }, true},
		"link":      {func(d string) error { return replace(d+"/index.html", outside) }, false},
		"link dir":  {func(d string) error { return replace(d+"/a", d) }, false},
		"pipe":      {func(d string) error { return syscall.Mkfifo(d+"/p", 0o644) }, false},
		"all a lie": {func(d string) error { return replace(d, filepath.Dir(outside)) }, false},
	} {
		dir := filepath.Join(t.TempDir(), "r")
		if err := Extract(t.Context(), file, Tar, m, dst(t, dir)); err != nil {
			t.Fatal(err)
		}
		if err := VerifyTree(dir, m, true); err != nil {
			t.Fatal(err)
		}
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		if err := VerifyTree(dir, m, true); errs.CodeOf(err) != errs.Digest {
			t.Errorf("%s, deep: %v", name, err)
		}
		if err := VerifyTree(dir, m, false); (errs.CodeOf(err) == errs.Digest) == c.deep {
			t.Errorf("%s, quick: %v", name, err)
		}
	}
	wantCode(t, VerifyTree(filepath.Join(t.TempDir(), "none"), m, true), errs.NotFound)
}

func dst(t *testing.T, dir string) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func replace(path, target string) error {
	return errors.Join(os.RemoveAll(path), os.Symlink(target, path))
}

func TestFullDiskIsNamed(t *testing.T) {
	err := DiskError(&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, "extract %q", "x")
	wantCode(t, err, errs.DiskFull)
	if err := DiskError(io.ErrClosedPipe, "x"); errs.CodeOf(err) != errs.Internal || !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
}

// Whatever names a site has: what was built, extracted and packed again builds the same manifest.
func TestRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		element := rapid.StringMatching(`[a-zA-Z0-9äé _.~#!-]{1,12}`).Filter(func(s string) bool { return strings.Trim(s, ".") != "" })
		paths := rapid.SliceOfNDistinct(rapid.SliceOfN(element, 1, 3), 0, 10, func(p []string) string { return strings.Join(p, "/") }).Draw(rt, "paths")
		names := newTree(1000)
		items := []item{{name: "index.html", body: "x"}}
		_ = names.add("index.html", false)
		for i, p := range paths {
			name := strings.Join(p, "/")
			if names.add(name, false) == nil && !strings.Contains("/"+name+"/", "/.git/") && name != ignoreFile {
				items = append(items, item{name: name, body: strings.Repeat("z", i), kind: tar.TypeReg})
			}
		}
		file := asFile(t, tarOf(t, items...))
		m := mustBuild(t, file, Tar)
		dir := filepath.Join(t.TempDir(), "r")
		if err := Extract(t.Context(), file, Tar, m, dir); err != nil {
			rt.Fatal(err)
		}
		var packed bytes.Buffer
		if _, err := Pack(t.Context(), dir, &packed); err != nil {
			rt.Fatal(err)
		}
		again := mustBuild(t, asFile(t, packed.Bytes()), TarGzip)
		if diff := cmp.Diff(m, again); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func BenchmarkBuildAndExtract20Files(b *testing.B) {
	items := []item{{name: "index.html", body: "x"}}
	for i := range 19 {
		items = append(items, item{name: fmt.Sprintf("assets/%d.css", i), body: strings.Repeat("a{}", 700)})
	}
	file := asFile(b, gz(b, tarOf(b, items...)))
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		m := mustBuild(b, file, TarGzip)
		if err := Extract(b.Context(), file, TarGzip, m, filepath.Join(dir, fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
	}
}
