package source

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"kontiki/errs"
)

// Helpers that make archives, good and bad.

type item struct {
	name string
	body string
	mode int64 // 0: 0644
	kind byte  // 0: file
	link string
}

func tarOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, it := range items {
		h := &tar.Header{Name: it.name, Mode: it.mode, Typeflag: it.kind, Size: int64(len(it.body)), Linkname: it.link}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(it.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t testing.TB, change func(*zip.FileHeader), items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, it := range items {
		h := &zip.FileHeader{Name: it.name, Method: zip.Deflate}
		h.SetMode(0o644 | fs.FileMode(it.mode))
		if change != nil {
			change(h)
		}
		out, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(it.name, "/") {
			if _, err := out.Write([]byte(it.body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// asFile gives the bytes as a file that is on no disk.
func asFile(t testing.TB, b []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("upload", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "upload")
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

func wantCode(t *testing.T, err error, code errs.Code) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Fatalf("code %q, want %q (%v)", errs.CodeOf(err), code, err)
	}
}

// site is a small good site.
func site() []item {
	return []item{
		{name: "./", kind: tar.TypeDir, mode: 0o755},
		{name: "./index.html", body: "<h1>hello</h1>"},
		{name: "./assets/", kind: tar.TypeDir, mode: 0o700},
		{name: "./assets/app.js", body: strings.Repeat("console.log(1)\n", 1000)},
		{name: "./bin/run", body: "#!/bin/sh\n", mode: 0o711},
		{name: "./ümlaut file.txt", body: "x", mode: 0o600},
	}
}

// formats gives the same items in every format.
func formats(t testing.TB, items []item) map[Format][]byte {
	t.Helper()
	plain := tarOf(t, items...)
	var zipped []item
	for _, it := range items {
		if it.name = strings.TrimPrefix(it.name, "./"); it.name != "" {
			zipped = append(zipped, it)
		}
	}
	return map[Format][]byte{Tar: plain, TarGzip: gz(t, plain), TarZstd: zst(t, plain), Zip: zipOf(t, nil, zipped...)}
}
