// Package artifact keeps content by its digest on one node and moves it between nodes.
//
// A blob lives at <dir>/sha256/<first two digits>/<64 hex digits> and is named "sha256:<64 hex digits>" everywhere
// else. It appears under its name only when it is complete, verified and on stable storage, and it never changes
// afterwards: a name that is there can be trusted up to damage of the disk, which Verify finds.
//
// Everything here is safe for concurrent use by one process per directory. Writers of the same content do not wait
// for one another: the last rename wins, with equal bytes. A file that Get handed out stays readable after Remove.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"kontiki/errs"
	"kontiki/fault"
)

const (
	algorithm = "sha256"
	prefix    = algorithm + ":"
	tempDir   = "tmp"
	copySize  = 256 << 10 // bytes per read and write
)

// Ref names stored content.
type Ref struct {
	Digest string `json:"digest"` // "sha256:<64 hex digits>"
	Size   int64  `json:"size"`   // bytes
}

// Store is the blobs of one node.
type Store struct {
	dir     string
	mu      sync.Mutex
	durable map[string]bool // folders whose own entry is known to be on the disk

	syncer  *Syncer      // nil: each writer syncs for itself
	writers atomic.Int32 // at work
}

// Open makes dir ready and removes what writers that were killed left behind. The errors are of the file system.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, durable: map[string]bool{}}
	if err := os.RemoveAll(filepath.Join(dir, tempDir)); err != nil {
		return nil, fmt.Errorf("remove left-over temporary blobs: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, tempDir), 0o700); err != nil {
		return nil, diskError(err, "create blob directory %s", dir)
	}
	base := filepath.Join(dir, algorithm)
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, diskError(err, "create blob directory %s", base)
	}
	for _, d := range []string{base, dir, filepath.Dir(dir)} {
		if err := syncDir(d); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ParseDigest checks a digest's form and gives its 64 hex digits; the error is of code Invalid.
func ParseDigest(digest string) (string, error) {
	digits, ok := strings.CutPrefix(digest, prefix)
	if !ok || !isHex(digits) {
		return "", errs.New(errs.Invalid, "%q is not a digest", digest).WithField("digest").
			WithHint("a digest is sha256: followed by 64 lower-case hex digits")
	}
	return digits, nil
}

func isHex(s string) bool {
	if len(s) != hex.EncodedLen(sha256.Size) {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func (s *Store) path(digest string) (string, error) {
	digits, err := ParseDigest(digest)
	if err != nil {
		return "", err
	}
	return filepath.Join(s.dir, algorithm, digits[:2], digits), nil
}

// Put stores everything r gives. More than limit bytes (0: no limit) are refused as TooLarge, a full disk is DiskFull,
// a failing reader Unavailable unless its error has a code of its own; nothing is left behind then. When Put returns
// without an error the content survives a crash of the machine.
func (s *Store) Put(ctx context.Context, r io.Reader, limit int64) (Ref, error) {
	return s.put(ctx, r, want{limit: limit})
}

// PutExpect stores what r gives if it has the digest, else the error is of code Digest. Content that is there already
// is a success, without reading r. The other errors are Put's.
func (s *Store) PutExpect(ctx context.Context, digest string, r io.Reader) (Ref, error) {
	ref, err := s.Stat(digest)
	if err == nil {
		return ref, s.touch(digest) // whoever collects old blobs must see that this one was wanted just now
	}
	if errs.CodeOf(err) != errs.NotFound {
		return Ref{}, err
	}
	return s.put(ctx, r, want{digest: digest})
}

// want is what a writer is held to.
type want struct {
	digest string // "": any
	limit  int64  // bytes, 0: any
}

func (s *Store) put(ctx context.Context, r io.Reader, w want) (Ref, error) {
	if err := fault.Point("artifact.put.before"); err != nil {
		return Ref{}, err
	}
	s.writers.Add(1)
	defer s.writers.Add(-1)
	temp, err := os.CreateTemp(filepath.Join(s.dir, tempDir), "put-")
	if err != nil {
		return Ref{}, diskError(err, "create temporary blob")
	}
	ref, err := s.fill(ctx, temp, r, w)
	if err == nil {
		err = s.publish(ctx, temp.Name(), ref.Digest)
	}
	if err != nil {
		_ = os.Remove(temp.Name()) // Open removes it should this fail
		return Ref{}, err
	}
	return ref, fault.Point("artifact.put.after")
}

// fill writes r into temp, checks it and brings it to the disk. It closes temp.
func (s *Store) fill(ctx context.Context, temp *os.File, r io.Reader, w want) (ref Ref, err error) {
	defer func() {
		if cerr := temp.Close(); err == nil && cerr != nil {
			err = diskError(cerr, "close temporary blob")
		}
	}()
	hash := sha256.New()
	size, err := copyLimited(ctx, io.MultiWriter(temp, hash), r, w.limit)
	if err != nil {
		return Ref{}, err
	}
	ref = Ref{Digest: prefix + hex.EncodeToString(hash.Sum(nil)), Size: size}
	if w.digest != "" && ref.Digest != w.digest {
		return Ref{}, errs.New(errs.Digest, "content of %d bytes has digest %s, not %s", size, ref.Digest, w.digest).
			WithHint("it was damaged on its way; send it again")
	}
	if err := s.sync(ctx, temp.Sync); err != nil {
		return Ref{}, diskError(err, "sync blob of %d bytes", size)
	}
	return ref, nil
}

func (s *Store) publish(ctx context.Context, temp, digest string) error {
	path, err := s.path(digest)
	if err != nil {
		return err
	}
	if err := s.folder(filepath.Dir(path)); err != nil {
		return err
	}
	if err := fault.Point("artifact.put.rename"); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return diskError(err, "rename blob")
	}
	return s.sync(ctx, func() error { return syncDir(filepath.Dir(path)) })
}

// copyLimited copies until the end of r, an error, the end of ctx, or one byte over the limit.
func copyLimited(ctx context.Context, w io.Writer, r io.Reader, limit int64) (int64, error) {
	buf := make([]byte, copySize)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return size, fmt.Errorf("store blob: %w", err)
		}
		n, rerr := r.Read(buf)
		size += int64(n)
		if limit > 0 && size > limit {
			return size, errs.New(errs.TooLarge, "content is over the limit of %d bytes", limit).
				WithHint("send less, or raise the limit in the node's configuration")
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return size, diskError(err, "write blob after %d bytes", size)
		}
		if rerr == io.EOF {
			return size, nil
		}
		if rerr != nil {
			return size, readError(rerr, size)
		}
	}
}

func readError(err error, size int64) error {
	var coded *errs.Error
	if errors.As(err, &coded) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("read content: %w", err)
	}
	return errs.New(errs.Unavailable, "content broke off after %d bytes: %w", size, err).WithHint("send it again")
}

// Get opens a blob for reading; the caller closes it. NotFound means that it is certainly absent.
func (s *Store) Get(digest string) (*os.File, error) {
	path, err := s.path(digest)
	if err != nil {
		return nil, err
	}
	// A link or pipe put here by someone else is an error, never followed or waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, absent(err, digest)
	}
	info, err := f.Stat()
	if err == nil {
		err = regular(info, digest)
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return f, nil
}

// Stat gives a blob's size. NotFound means that it is certainly absent.
func (s *Store) Stat(digest string) (Ref, error) {
	info, err := s.lstat(digest)
	if err != nil {
		return Ref{}, err
	}
	return Ref{Digest: digest, Size: info.Size()}, nil
}

// touch renews the time of a blob, which Stored gives.
func (s *Store) touch(digest string) error {
	path, err := s.path(digest)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		return absent(err, digest)
	}
	return nil
}

// Stored gives when a blob was last put, by this machine's clock: what was put a moment ago may not be referenced yet.
func (s *Store) Stored(digest string) (time.Time, error) {
	info, err := s.lstat(digest)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

func (s *Store) lstat(digest string) (fs.FileInfo, error) {
	path, err := s.path(digest)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, absent(err, digest)
	}
	return info, regular(info, digest)
}

// Remove deletes a blob; one that is absent is a success.
func (s *Store) Remove(digest string) error {
	path, err := s.path(digest)
	if err != nil {
		return err
	}
	if err := fault.Point("artifact.remove.before"); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob: %w", err)
	}
	return fault.Point("artifact.remove.after")
}

// List gives all blobs, sorted by digest. Files of other names are not ours and are left out.
func (s *Store) List() ([]Ref, error) {
	folders, err := os.ReadDir(filepath.Join(s.dir, algorithm))
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	var refs []Ref
	for _, folder := range folders {
		if !folder.IsDir() || len(folder.Name()) != 2 {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(s.dir, algorithm, folder.Name()))
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), folder.Name()) {
				continue
			}
			ref, err := s.Stat(prefix + e.Name())
			switch errs.CodeOf(err) {
			case "":
				refs = append(refs, ref)
			case errs.Invalid, errs.NotFound, errs.StateCorrupt: // foreign, or just removed
			default:
				return nil, err
			}
		}
	}
	return refs, nil
}

// Verify reads a blob and compares its content with its name; damage is an error of code Digest.
func (s *Store) Verify(ctx context.Context, digest string) error {
	f, err := s.Get(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	size, err := copyLimited(ctx, hash, f, 0)
	if err != nil {
		return fmt.Errorf("verify %s: %w", digest, err)
	}
	if got := prefix + hex.EncodeToString(hash.Sum(nil)); got != digest {
		return errs.New(errs.Digest, "stored blob %s is damaged: its %d bytes have digest %s", digest, size, got).
			WithHint("remove it and fetch it from another node")
	}
	return nil
}

func absent(err error, digest string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "blob %s is not on this node", digest)
	}
	return fmt.Errorf("open blob %s: %w", digest, err)
}

func regular(info fs.FileInfo, digest string) error {
	if !info.Mode().IsRegular() {
		return errs.New(errs.StateCorrupt, "blob %s is a %s, not a file", digest, info.Mode().Type()).
			WithHint("something else wrote into the blob directory; move that entry away")
	}
	return nil
}

// diskError wraps an error of the file system and gives a full disk its code.
func diskError(err error, format string, args ...any) error {
	action := fmt.Sprintf(format, args...)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.New(errs.DiskFull, "%s: %w", action, err).WithHint("free space on the disk of the data directory")
	}
	return fmt.Errorf("%s: %w", action, err)
}
