package source

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kontiki/errs"
)

func ignoreEntry(Entry, io.Reader) error { return nil }

func TestWalkReadsEveryFormat(t *testing.T) {
	want := map[string]string{
		"index.html": "644 <h1>hello</h1>", "assets": "dir", "bin/run": "755 #!/bin/sh\n", "ümlaut file.txt": "644 x",
		"assets/app.js": "644 " + strings.Repeat("console.log(1)\n", 1000),
	}
	for format, b := range formats(t, site()) {
		file := asFile(t, b)
		if got, err := Detect(file, ""); err != nil || got != format {
			t.Errorf("detected %q %v, want %q", got, err, format)
		}
		got := map[string]string{}
		err := Walk(t.Context(), file, format, DefaultLimits, func(e Entry, r io.Reader) error {
			body, err := io.ReadAll(r)
			got[e.Name] = fmt.Sprintf("%o %s", e.Mode, body)
			if e.Dir {
				got[e.Name] = "dir"
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
}

func TestBadEntriesAreRefusedByNameAndReason(t *testing.T) {
	ok := item{name: "index.html", body: "x"}
	deep := strings.Repeat("d/", 70) + "f"
	for name, c := range map[string]struct {
		items  []item
		reason string
	}{
		"absolute":        {[]item{{name: "/etc/passwd"}}, "absolute"},
		"dot dot":         {[]item{{name: "../x"}}, "leads out"},
		"inner dot dot":   {[]item{{name: "a/../../x"}}, "leads out"},
		"dot dot dir":     {[]item{{name: "../", kind: tar.TypeDir}}, "leads out"},
		"empty element":   {[]item{{name: "a//b"}}, "empty element"},
		"dot element":     {[]item{{name: "a/./b"}}, "empty element"},
		"control":         {[]item{{name: "a\nb"}}, "control"},
		"escape":          {[]item{{name: "a\x1b[2Jb"}}, "control"},
		"bidi":            {[]item{{name: "a\u202egnp.exe"}}, "control or bidirectional"},
		"invalid utf-8":   {[]item{{name: "a\xff"}}, "UTF-8"},
		"backslash":       {[]item{{name: `..\x`}}, "backslash"},
		"symlink":         {[]item{{name: "l", kind: tar.TypeSymlink, link: "/etc"}}, "symbolic link"},
		"hard link":       {[]item{ok, {name: "l", kind: tar.TypeLink, link: "index.html"}}, "hard link"},
		"char device":     {[]item{{name: "d", kind: tar.TypeChar}}, "device"},
		"block device":    {[]item{{name: "d", kind: tar.TypeBlock}}, "device"},
		"fifo":            {[]item{{name: "p", kind: tar.TypeFifo}}, "FIFO"},
		"contiguous":      {[]item{{name: "c", kind: tar.TypeCont}}, "neither"},
		"setuid":          {[]item{{name: "s", mode: 0o4755}}, "setuid"},
		"setgid":          {[]item{{name: "s", mode: 0o2755}}, "setgid"},
		"sticky":          {[]item{{name: "s/", kind: tar.TypeDir, mode: 0o1777}}, "sticky"},
		"twice":           {[]item{ok, ok}, "twice"},
		"twice spelled":   {[]item{ok, {name: "./index.html"}}, "twice"},
		"file then dir":   {[]item{{name: "a"}, {name: "a/b"}}, "as a file"},
		"dir then file":   {[]item{{name: "a/b"}, {name: "a"}}, "file and as a directory"},
		"entry dir, file": {[]item{{name: "a/", kind: tar.TypeDir}, {name: "a"}}, "file and as a directory"},
		"file, entry dir": {[]item{{name: "a"}, {name: "a/", kind: tar.TypeDir}}, "file and as a directory"},
		"dir twice":       {[]item{{name: "a/", kind: tar.TypeDir}, {name: "a/", kind: tar.TypeDir}}, "twice"},
		"long element":    {[]item{{name: strings.Repeat("x", 256)}}, "255"},
		"long name":       {[]item{{name: strings.Repeat("abcdefgh/", 120) + "f"}}, "1024"},
		"deep":            {[]item{{name: deep}}, "deep"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Walk(t.Context(), asFile(t, tarOf(t, c.items...)), Tar, DefaultLimits, ignoreEntry)
			wantCode(t, err, errs.InvalidArchive)
			if !strings.Contains(err.Error(), c.reason) || !strings.Contains(err.Error(), "archive entry") {
				t.Fatalf("%v, want %q", err, c.reason)
			}
			if strings.ContainsFunc(err.Error(), deceptive) {
				t.Fatalf("the message itself is not fit to print: %q", err)
			}
		})
	}
}

func TestBadZipEntries(t *testing.T) {
	mode := func(m fs.FileMode) func(*zip.FileHeader) { return func(h *zip.FileHeader) { h.SetMode(m) } }
	for name, c := range map[string]struct {
		item   item
		change func(*zip.FileHeader)
		reason string
	}{
		"dot dot":   {item{name: "../x"}, nil, "leads out"},
		"absolute":  {item{name: "/x"}, nil, "absolute"},
		"backslash": {item{name: `a\b`}, nil, "backslash"},
		"NUL":       {item{name: "a\x00b"}, nil, "control"},
		"empty":     {item{name: ""}, nil, "empty"},
		"slash":     {item{name: "/"}, nil, "empty"},
		"symlink":   {item{name: "l", body: "/etc"}, mode(fs.ModeSymlink | 0o777), "symbolic link"},
		"device":    {item{name: "d"}, mode(fs.ModeDevice | 0o644), "device"},
		"fifo":      {item{name: "p"}, mode(fs.ModeNamedPipe | 0o644), "FIFO"},
		"socket":    {item{name: "p"}, mode(fs.ModeSocket | 0o644), "socket"},
		"setuid":    {item{name: "s"}, mode(fs.ModeSetuid | 0o755), "setuid"},
		"encrypted": {item{name: "e", body: "x"}, func(h *zip.FileHeader) { h.Flags |= 1 }, "encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Walk(t.Context(), asFile(t, zipOf(t, c.change, c.item)), Zip, DefaultLimits, ignoreEntry)
			wantCode(t, err, errs.InvalidArchive)
			if !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("%v, want %q", err, c.reason)
			}
		})
	}
	unknown := zipOf(t, nil, item{name: "a", body: "x"})
	for _, signature := range []string{"PK\x03\x04", "PK\x01\x02"} {
		at := bytes.Index(unknown, []byte(signature)) + 8
		if signature[2] == 1 {
			at += 2
		}
		binary.LittleEndian.PutUint16(unknown[at:], 97)
	}
	err := Walk(t.Context(), asFile(t, unknown), Zip, DefaultLimits, ignoreEntry)
	if err == nil || !strings.Contains(err.Error(), "method 97") {
		t.Fatal(err)
	}
}

// Every archive that lost its end, whatever the length of the rest, is refused and never taken for a smaller one.
func TestTruncatedArchivesAreRefused(t *testing.T) {
	items := []item{{name: "index.html", body: strings.Repeat("a line\n", 200)}, {name: "b", body: "bb"}}
	for format, b := range formats(t, items) {
		for n := 0; n < len(b); n += 1 + len(b)/300 {
			if format == Tar && n > len(b)-1024 {
				break // half of the end mark is missing, but none of the content
			}
			err := Walk(t.Context(), asFile(t, b[:n]), format, DefaultLimits, ignoreEntry)
			if errs.CodeOf(err) != errs.InvalidArchive {
				t.Fatalf("%s cut to %d of %d bytes: %v", format, n, len(b), err)
			}
		}
	}
}

func TestFlippedBitsInCompressedContentAreRefused(t *testing.T) {
	items := []item{{name: "index.html", body: strings.Repeat("some line or other\n", 50)}}
	for format, b := range formats(t, items) {
		if format == Tar {
			continue // a tar has no checksum over content
		}
		bad := bytes.Clone(b)
		bad[len(bad)/3] ^= 0x10
		if format == TarGzip { // the CRC itself
			bad = bytes.Clone(b)
			bad[len(bad)-6] ^= 1
		}
		err := Walk(t.Context(), asFile(t, bad), format, DefaultLimits, ignoreEntry)
		if errs.CodeOf(err) != errs.InvalidArchive {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestWhatIsNoArchiveIsRefused(t *testing.T) {
	good := tarOf(t, item{name: "index.html", body: "x"})
	for name, c := range map[string]struct {
		format Format
		bytes  []byte
	}{
		"text as tar":      {Tar, bytes.Repeat([]byte("hello world\n"), 100)},
		"text as gzip":     {TarGzip, []byte("hello world")},
		"text as zstd":     {TarZstd, []byte("hello world")},
		"text as zip":      {Zip, []byte("hello world")},
		"gzip of text":     {TarGzip, gz(t, bytes.Repeat([]byte("hello world\n"), 100))},
		"empty file":       {Tar, nil},
		"empty tar":        {Tar, tarOf(t)},
		"empty zip":        {Zip, zipOf(t, nil)},
		"directories only": {Tar, tarOf(t, item{name: "a/", kind: tar.TypeDir})},
		"data behind tar":  {Tar, append(bytes.Clone(good), good...)},
		"data behind gzip": {TarGzip, append(gz(t, good), "garbage behind the end"...)},
		"two gzips":        {TarGzip, append(gz(t, good), gz(t, good)...)},
	} {
		err := Walk(t.Context(), asFile(t, c.bytes), c.format, DefaultLimits, ignoreEntry)
		if errs.CodeOf(err) != errs.InvalidArchive {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantCode(t, Walk(t.Context(), asFile(t, good), "rar", DefaultLimits, ignoreEntry), errs.Invalid)
}

func TestLimits(t *testing.T) {
	var many []item
	for i := range 11 {
		many = append(many, item{name: fmt.Sprint(i), body: "0123456789"})
	}
	nested := item{name: "a/b/c/d/e/f/g/h/i/j/k/l"}
	for format, b := range formats(t, many) {
		file := asFile(t, b)
		for _, c := range []struct {
			limits Limits
			reason string
		}{
			{Limits{Files: 11, Bytes: 110}, ""},
			{Limits{Files: 10, Bytes: 110}, "more than 10 entries"},
			{Limits{Files: 11, Bytes: 109}, "limit of 109 bytes"},
		} {
			err := Walk(t.Context(), file, format, c.limits, ignoreEntry)
			if c.reason == "" && err != nil || c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)) {
				t.Errorf("%s %+v: %v", format, c.limits, err)
			}
		}
	}
	err := Walk(t.Context(), asFile(t, tarOf(t, nested)), Tar, Limits{Files: 5, Bytes: 10}, ignoreEntry)
	wantCode(t, err, errs.InvalidArchive)
}

func TestBombsAreStopped(t *testing.T) {
	zeros := strings.Repeat("\x00", 12<<20)
	for format, b := range formats(t, []item{{name: "index.html", body: zeros}}) {
		if format == Tar {
			continue
		}
		var out int64
		err := Walk(t.Context(), asFile(t, b), format, DefaultLimits, func(_ Entry, r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			out += n
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "more than 200 times") {
			t.Errorf("%s of %d bytes: %v", format, len(b), err)
		}
		if out > freeRatio+int64(len(b))*maxRatio+copySize {
			t.Errorf("%s: %d bytes came out", format, out)
		}
	}
	// Padding behind the end is counted too, and so is a directory that is all of a zip.
	padded := append(tarOf(t, item{name: "index.html"}), zeros...)
	wantCode(t, Walk(t.Context(), asFile(t, gz(t, padded)), TarGzip, DefaultLimits, ignoreEntry), errs.InvalidArchive)
	var names []item
	for i := range 5_000 {
		names = append(names, item{name: fmt.Sprintf("%01000d", i)})
	}
	err := Walk(t.Context(), asFile(t, zipOf(t, nil, names...)), Zip, Limits{Files: 10, Bytes: 1}, ignoreEntry)
	wantCode(t, err, errs.InvalidArchive)
}

func TestWalkEndsWithItsContextAndWithItsCaller(t *testing.T) {
	mine := errors.New("mine")
	for format, b := range formats(t, site()) {
		ctx, cancel := context.WithCancel(t.Context())
		err := Walk(ctx, asFile(t, b), format, DefaultLimits, func(Entry, io.Reader) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) || errs.CodeOf(err) == errs.InvalidArchive {
			t.Errorf("%s: %v", format, err)
		}
		err = Walk(t.Context(), asFile(t, b), format, DefaultLimits, func(Entry, io.Reader) error { return mine })
		if !errors.Is(err, mine) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestADiskThatFailsIsNotTheArchivesFault(t *testing.T) {
	file := asFile(t, tarOf(t, site()...))
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Walk(t.Context(), file, Tar, DefaultLimits, ignoreEntry); errs.CodeOf(err) == errs.InvalidArchive || err == nil {
		t.Fatal(err)
	}
	dir, err := os.Open(t.TempDir()) // reading a directory is EISDIR
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, format := range []Format{Tar, TarGzip, TarZstd, Zip} {
		if err := Walk(t.Context(), dir, format, DefaultLimits, ignoreEntry); errs.CodeOf(err) == errs.InvalidArchive {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name, content, media string
		want                 Format
	}{
		{"text", "hello", "text/plain", ""},
		{"empty", "", "application/zip", ""},
		{"self-extracting", "#!/bin/sh\nPK", "application/zip; x=y", Zip},
		{"zip called tar", "PK\x03\x04...", "application/x-tar", Zip},
		{"skippable", "\x50\x2a\x4d\x18....", "", TarZstd},
	} {
		got, err := Detect(asFile(t, []byte(c.content)), c.media)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q %v", c.name, got, err)
		}
	}
}

func FuzzWalk(f *testing.F) {
	seeds := []item{{name: "index.html", body: "x"}, {name: "a/b", body: "y"}, {name: "c/", kind: tar.TypeDir, mode: 0o755}}
	for format, b := range formats(f, seeds) {
		f.Add(b, string(format))
	}
	f.Add(tarOf(f, item{name: "../x"}), string(Tar))
	f.Fuzz(func(t *testing.T, b []byte, format string) {
		limits := Limits{Files: 100, Bytes: 1 << 20}
		seen, sum := map[string]bool{}, int64(0)
		err := Walk(t.Context(), asFile(t, b), Format(format), limits, func(e Entry, r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			sum += n
			if !filepath.IsLocal(e.Name) || seen[e.Name] || strings.ContainsAny(e.Name, "\x00\\") || e.Mode&^0o755 != 0 {
				t.Errorf("bad entry %+v", e)
			}
			if err == nil && n != e.Size {
				t.Errorf("%q: %d bytes, declared %d", e.Name, n, e.Size)
			}
			seen[e.Name] = true
			return err
		})
		if sum > limits.Bytes || len(seen) > limits.Files {
			t.Errorf("%d bytes of %d entries came out", sum, len(seen))
		}
		if code := errs.CodeOf(err); code != "" && code != errs.InvalidArchive && code != errs.Invalid {
			t.Errorf("code %q: %v", code, err)
		}
	})
}
