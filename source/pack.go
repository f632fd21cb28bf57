package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/gzip"

	"kontiki/errs"
)

// PackInfo says what was packed.
type PackInfo struct {
	Files int
	Bytes int64 // before compression
}

// List gives the files of a folder that Pack would pack, sorted, without hashes. Left out are .git, .kontikiignore and
// what that names. Links, devices and names that no node would accept are refused with code Invalid.
func List(dir string) ([]File, error) {
	rules, err := loadIgnores(dir)
	if err != nil {
		return nil, err
	}
	l := &lister{dir: dir, rules: rules}
	if err := l.list(""); err != nil {
		return nil, err
	}
	sortFiles(l.files)
	return l.files, nil
}

type lister struct {
	dir   string
	rules ignores
	files []File
}

func (l *lister) list(rel string) error {
	entries, err := os.ReadDir(filepath.Join(l.dir, filepath.FromSlash(rel)))
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	for _, e := range entries {
		name := path.Join(rel, e.Name())
		if e.Name() == ".git" || name == ignoreFile || l.rules.match(name, e.IsDir()) {
			continue
		}
		if err := l.entry(name, e); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) entry(name string, e fs.DirEntry) error {
	reason := checkName(name)
	if reason == nil {
		reason = checkMode(e.Type())
	}
	if reason != nil {
		return errs.New(errs.Invalid, "cannot pack %+q: %w", name, reason).WithField(name).
			WithHint("replace it by a plain file, or name it in %s", ignoreFile)
	}
	if e.IsDir() {
		return l.list(name)
	}
	info, err := e.Info()
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	l.files = append(l.files, File{Path: name, Size: info.Size(), Mode: normalMode(info.Mode())})
	return nil
}

// Pack writes a folder as a tar.gz to w. Equal folders give equal bytes: sorted names, no times, no owners. What is
// packed and refused is as List says; Conflict means that a file changed meanwhile.
func Pack(ctx context.Context, dir string, w io.Writer) (PackInfo, error) {
	files, err := List(dir)
	if err != nil {
		return PackInfo{}, err
	}
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return PackInfo{}, fmt.Errorf("pack: %w", err)
	}
	out := tar.NewWriter(z)
	info := PackInfo{Files: len(files)}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return PackInfo{}, fmt.Errorf("pack: %w", err)
		}
		if err := packFile(out, dir, f); err != nil {
			return PackInfo{}, err
		}
		info.Bytes += f.Size
	}
	if err := errors.Join(out.Close(), z.Close()); err != nil {
		return PackInfo{}, fmt.Errorf("pack: %w", err)
	}
	return info, nil
}

func packFile(out *tar.Writer, dir string, f File) error {
	in, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(f.Path)),
		os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() != f.Size {
		return changed(f.Path)
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Size: f.Size, Mode: int64(f.Mode)}
	if err := out.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %q: %w", f.Path, err)
	}
	if _, err := io.CopyN(out, in, f.Size); errors.Is(err, io.EOF) {
		return changed(f.Path)
	} else if err != nil {
		return fmt.Errorf("pack %q: %w", f.Path, err)
	}
	return nil
}

func changed(name string) error {
	return errs.New(errs.Conflict, "%q changed while it was packed", name).WithField(name).
		WithHint("wait for what writes there and try again")
}
