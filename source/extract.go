package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"syscall"

	"kontiki/errs"
)

const copySize = 128 << 10 // bytes per read and write

// Extract writes what the manifest names, and nothing else, into dst, which must be absent or an empty directory.
// Every file's size and hash are verified while it is written. The errors are Walk's, Digest when the archive is not
// the one the manifest was built from, and DiskFull; what was written until then stays, for the caller to remove.
// Extract does not sync.
func Extract(ctx context.Context, file *os.File, format Format, manifest Manifest, dst string) error {
	if err := manifest.check(); err != nil {
		return err
	}
	x, err := newExtraction(manifest, dst)
	if err != nil {
		return err
	}
	defer x.root.Close()
	// The manifest's builder has held the archive to the limits of its time; here only the ratio matters.
	unbounded := Limits{Files: math.MaxInt32, Bytes: math.MaxInt64 / 2}
	if err := Walk(ctx, file, format, unbounded, x.entry); err != nil {
		return err
	}
	for p := range x.missing {
		return errs.New(errs.Digest, "the archive lacks %q (%d files are missing)", p, len(x.missing)).
			WithHint("%s", wrongArchive)
	}
	return nil
}

const wrongArchive = "the archive is not the one the manifest was built from; build again"

// extraction is one Extract under way.
type extraction struct {
	root    *os.Root
	site    string // the manifest's root
	missing map[string]File
	dirs    map[string]bool // made so far
	bytes   int64           // of the whole manifest
	hash    hash.Hash
	buf     []byte
}

func newExtraction(m Manifest, dst string) (*extraction, error) {
	if err := os.Mkdir(dst, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, DiskError(err, "create %s", dst)
	}
	there, err := os.ReadDir(dst)
	if err != nil {
		return nil, fmt.Errorf("extract: %w", err)
	}
	if len(there) != 0 {
		return nil, errs.New(errs.Conflict, "extract: %s is not empty", dst).WithHint("extract into a fresh directory")
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		return nil, fmt.Errorf("extract: %w", err)
	}
	x := &extraction{root: root, site: m.Root, missing: make(map[string]File, len(m.Files)),
		dirs: map[string]bool{".": true}, bytes: m.Bytes(), hash: sha256.New(), buf: make([]byte, copySize)}
	for _, f := range m.Files {
		x.missing[f.Path] = f
	}
	return x, nil
}

func (x *extraction) entry(e Entry, r io.Reader) error {
	rel, ok := under(x.site, e.Name)
	f, named := x.missing[rel]
	if e.Dir || !ok || !named {
		return nil
	}
	delete(x.missing, rel)
	if err := x.mkdir(path.Dir(rel)); err != nil {
		return err
	}
	return x.write(f, r)
}

// mkdir makes a directory and its parents. The umask is not asked: a server under another user must read them.
func (x *extraction) mkdir(dir string) error {
	if x.dirs[dir] {
		return nil
	}
	if err := x.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := x.root.Mkdir(dir, 0o755); err != nil {
		return DiskError(err, "extract %q", dir)
	}
	if err := x.root.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("extract %q: %w", dir, err)
	}
	x.dirs[dir] = true
	return nil
}

func (x *extraction) write(f File, r io.Reader) (err error) {
	out, err := x.root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return DiskError(err, "extract %q", f.Path)
	}
	defer func() {
		if cerr := out.Close(); err == nil && cerr != nil {
			err = DiskError(cerr, "extract %q", f.Path)
		}
	}()
	x.hash.Reset()
	size, err := io.CopyBuffer(io.MultiWriter(out, x.hash), io.LimitReader(r, f.Size+1), x.buf)
	if err != nil {
		return DiskError(err, "extract %q (the release needs %d bytes)", f.Path, x.bytes)
	}
	if sum := hex.EncodeToString(x.hash.Sum(nil)); size != f.Size || sum != f.SHA256 {
		return errs.New(errs.Digest, "the archive's %q differs from its manifest", f.Path).WithField(f.Path).
			WithHint("%s", wrongArchive)
	}
	if err := out.Chmod(f.Mode); err != nil {
		return fmt.Errorf("extract %q: %w", f.Path, err)
	}
	return nil
}

// DiskError wraps an error of the file system with the action, and gives a full disk its code.
func DiskError(err error, format string, args ...any) error {
	action := fmt.Sprintf(format, args...)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.New(errs.DiskFull, "%s: %w", action, err).WithHint("free space on the disk of the data directory")
	}
	return fmt.Errorf("%s: %w", action, err)
}
