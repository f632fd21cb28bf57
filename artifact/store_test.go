package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"kontiki/errs"
	"kontiki/fault"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func mustPut(t *testing.T, s *Store, content string) Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), strings.NewReader(content), 0)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func wantCode(t *testing.T, err error, code errs.Code) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Fatalf("code %q, want %q (%v)", errs.CodeOf(err), code, err)
	}
}

func wantNoTemps(t *testing.T, s *Store) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(s.dir, tempDir))
	if err != nil || len(left) != 0 {
		t.Fatalf("temporaries left: %v %v", left, err)
	}
}

func TestPutThenGet(t *testing.T) {
	s := openStore(t)
	ref := mustPut(t, s, "hello")
	if ref != (Ref{Digest: digestOf("hello"), Size: 5}) {
		t.Fatalf("%+v", ref)
	}
	f, err := s.Get(ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Remove(ref.Digest); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "hello" {
		t.Fatalf("an open blob stays readable: %q %v", got, err)
	}
	wantNoTemps(t, s)
}

func TestAbsentIsNotFoundAndRemoveOfItSucceeds(t *testing.T) {
	s := openStore(t)
	digest := digestOf("nothing")
	_, err := s.Get(digest)
	wantCode(t, err, errs.NotFound)
	_, err = s.Stat(digest)
	wantCode(t, err, errs.NotFound)
	_, err = s.Stored(digest)
	wantCode(t, err, errs.NotFound)
	wantCode(t, s.Verify(t.Context(), digest), errs.NotFound)
	if err := s.Remove(digest); err != nil {
		t.Fatal(err)
	}
}

func TestOtherErrorsAreNotAbsence(t *testing.T) {
	s := openStore(t)
	digest := digestOf("x")
	path, err := s.path(digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.folder(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(target, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		make func() error
	}{
		{"link", func() error { return os.Symlink(target, path) }},
		{"directory", func() error { return os.Mkdir(path, 0o700) }},
		{"pipe", func() error { return syscall.Mkfifo(path, 0o600) }},
		{"loop", func() error { return os.Symlink(path, path) }},
		{"folder is a file", func() error {
			return errors.Join(os.Remove(filepath.Dir(path)), os.WriteFile(filepath.Dir(path), nil, 0o600))
		}},
	} {
		name := c.name
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		if f, err := s.Get(digest); err == nil || errs.CodeOf(err) == errs.NotFound {
			t.Errorf("%s: Get gave %v %v", name, f, err)
		}
		if _, err := s.Stat(digest); err == nil || errs.CodeOf(err) == errs.NotFound {
			t.Errorf("%s: Stat gave %v", name, err)
		}
		if _, err := s.PutExpect(t.Context(), digest, strings.NewReader("x")); err == nil {
			t.Errorf("%s: PutExpect took it for the content", name)
		}
		_ = os.Remove(path)
	}
}

func TestPutRefusesWhatIsOverTheLimit(t *testing.T) {
	s := openStore(t)
	if _, err := s.Put(t.Context(), strings.NewReader("12345"), 5); err != nil {
		t.Fatal("exactly the limit:", err)
	}
	_, err := s.Put(t.Context(), strings.NewReader("123456"), 5)
	wantCode(t, err, errs.TooLarge)
	if !strings.Contains(err.Error(), "5 bytes") {
		t.Fatalf("the limit is not named: %v", err)
	}
	wantNoTemps(t, s)
}

func TestPutOfABrokenReaderLeavesNothing(t *testing.T) {
	s := openStore(t)
	broken := func(err error) io.Reader {
		return io.MultiReader(strings.NewReader("part"), iotest.ErrReader(err))
	}
	_, err := s.Put(t.Context(), broken(io.ErrUnexpectedEOF), 0)
	wantCode(t, err, errs.Unavailable)
	_, err = s.Put(t.Context(), broken(errs.New(errs.TooLarge, "body")), 0)
	wantCode(t, err, errs.TooLarge)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = s.Put(ctx, strings.NewReader("x"), 0); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	wantNoTemps(t, s)
	if refs, err := s.List(); err != nil || len(refs) != 0 {
		t.Fatalf("%v %v", refs, err)
	}
}

func TestPutExpect(t *testing.T) {
	s := openStore(t)
	_, err := s.PutExpect(t.Context(), digestOf("right"), strings.NewReader("wrong"))
	wantCode(t, err, errs.Digest)
	wantNoTemps(t, s)
	if _, err := s.PutExpect(t.Context(), digestOf("right"), strings.NewReader("right")); err != nil {
		t.Fatal(err)
	}
	ref, err := s.PutExpect(t.Context(), digestOf("right"), iotest.ErrReader(io.ErrClosedPipe))
	if err != nil || ref.Size != 5 {
		t.Fatalf("existing content is a success without reading: %+v %v", ref, err)
	}
	_, err = s.PutExpect(t.Context(), "sha256:../../etc/passwd", strings.NewReader(""))
	wantCode(t, err, errs.Invalid)
}

func TestWantedAgainIsYoungAgain(t *testing.T) {
	s := openStore(t)
	ref := mustPut(t, s, "old")
	path, err := s.path(ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	for _, again := range []func() error{
		func() error { _, err := s.Put(t.Context(), strings.NewReader("old"), 0); return err },
		func() error { _, err := s.PutExpect(t.Context(), ref.Digest, strings.NewReader("old")); return err },
	} {
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
		if err := again(); err != nil {
			t.Fatal(err)
		}
		if at, err := s.Stored(ref.Digest); err != nil || !at.After(long) {
			t.Fatalf("stored %v %v", at, err)
		}
	}
}

func TestListIsSortedAndLeavesOutForeignFiles(t *testing.T) {
	s := openStore(t)
	for _, c := range []string{"a", "b", "c", "d"} {
		mustPut(t, s, c)
	}
	foreign := filepath.Join(s.dir, algorithm, "zz")
	err := errors.Join(os.Mkdir(foreign, 0o700), os.WriteFile(filepath.Join(foreign, "notes.txt"), nil, 0o600),
		os.WriteFile(filepath.Join(s.dir, algorithm, "README"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	refs, err := s.List()
	if err != nil || len(refs) != 4 {
		t.Fatalf("%v %v", refs, err)
	}
	for i := 1; i < len(refs); i++ {
		if refs[i-1].Digest >= refs[i].Digest {
			t.Fatal("not sorted")
		}
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	s := openStore(t)
	ref := mustPut(t, s, "precious")
	if err := s.Verify(t.Context(), ref.Digest); err != nil {
		t.Fatal(err)
	}
	path, err := s.path(ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("preciouS"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(t, s.Verify(t.Context(), ref.Digest), errs.Digest)
	mustPut(t, s, "precious")
	if err := s.Verify(t.Context(), ref.Digest); err != nil {
		t.Fatal("Put replaces damaged content:", err)
	}
}

func TestOpenRemovesLeftOversAndKeepsBlobs(t *testing.T) {
	s := openStore(t)
	ref := mustPut(t, s, "kept")
	if err := os.WriteFile(filepath.Join(s.dir, tempDir, "put-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	wantNoTemps(t, again)
	if _, err := again.Stat(ref.Digest); err != nil {
		t.Fatal(err)
	}
}

func TestInjectedFaultsLeaveNothingHalf(t *testing.T) {
	for _, point := range []string{"artifact.put.before", "artifact.put.rename", "artifact.put.after"} {
		s := openStore(t)
		marks := t.TempDir()
		if err := fault.Arm(point+"=error", marks); err != nil {
			t.Fatal(err)
		}
		_, err := s.Put(t.Context(), strings.NewReader("x"), 0)
		if !errors.Is(err, fault.ErrInjected) {
			t.Fatalf("%s did not fire: %v", point, err)
		}
		wantNoTemps(t, s)
		if _, err := s.Put(t.Context(), strings.NewReader("x"), 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), digestOf("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := fault.Arm("", ""); err != nil {
		t.Fatal(err)
	}
}

func TestFullDiskIsNamed(t *testing.T) {
	s := openStore(t)
	if err := os.RemoveAll(filepath.Join(s.dir, tempDir)); err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.fill(t.Context(), full, strings.NewReader("anything"), want{})
	wantCode(t, err, errs.DiskFull)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal("the cause is lost")
	}
}

func TestManyWritersOfTheSameContent(t *testing.T) {
	s := openStore(t)
	content := bytes.Repeat([]byte("kontiki "), 20_000)
	var wg sync.WaitGroup
	failed := make(chan error, 16)
	for range cap(failed) {
		wg.Go(func() {
			ref, err := s.Put(t.Context(), bytes.NewReader(content), int64(len(content)))
			if err == nil {
				err = s.Verify(t.Context(), ref.Digest)
			}
			failed <- err
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			t.Error(err)
		}
	}
	wantNoTemps(t, s)
}

func BenchmarkPut64K(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	content := make([]byte, 64<<10)
	b.SetBytes(int64(len(content)))
	for i := 0; b.Loop(); i++ {
		content[0], content[1], content[2] = byte(i), byte(i>>8), byte(i>>16)
		if _, err := s.Put(b.Context(), bytes.NewReader(content), 0); err != nil {
			b.Fatal(err)
		}
	}
}
