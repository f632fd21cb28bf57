package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"kontiki/errs"
)

// VerifyTree compares a directory with a manifest: the same files and no others, of the right type, size and mode, and
// when deep is set with the right content. No link is followed. NotFound: dir is absent; Digest: it differs, and the
// message says where; every other error says nothing about the tree.
func VerifyTree(dir string, manifest Manifest, deep bool) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "directory %s is absent", dir)
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if !info.IsDir() {
		return differs(dir, "it is not a directory")
	}
	missing := make(map[string]File, len(manifest.Files))
	for _, f := range manifest.Files {
		missing[f.Path] = f
	}
	v := &verification{dir: dir, missing: missing, deep: deep}
	if err := filepath.WalkDir(dir, v.visit); err != nil {
		return err
	}
	for p := range missing {
		return differs(p, fmt.Sprintf("it is missing (%d files are)", len(missing)))
	}
	return nil
}

func differs(path, how string) error {
	return errs.New(errs.Digest, "the release differs from its manifest: %s: %s", path, how).WithField(path)
}

type verification struct {
	dir     string
	missing map[string]File
	deep    bool
}

func (v *verification) visit(path string, d fs.DirEntry, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return differs(path, "it vanished")
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	rel, err := filepath.Rel(v.dir, path)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return differs(rel, "it vanished")
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if d.IsDir() {
		if info.Mode().Perm()&0o755 != 0o755 {
			return differs(rel, fmt.Sprintf("the directory's mode is %o", info.Mode().Perm()))
		}
		return nil
	}
	return v.file(rel, info)
}

func (v *verification) file(rel string, info fs.FileInfo) error {
	f, ok := v.missing[rel]
	delete(v.missing, rel)
	switch {
	case !ok:
		return differs(rel, "it does not belong there")
	case info.Mode() != f.Mode:
		return differs(rel, fmt.Sprintf("its mode is %s, not %s", info.Mode(), f.Mode))
	case info.Size() != f.Size:
		return differs(rel, fmt.Sprintf("it has %d bytes, not %d", info.Size(), f.Size))
	case !v.deep:
		return nil
	}
	sum, err := hashFile(filepath.Join(v.dir, rel))
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if sum != f.SHA256 {
		return differs(rel, "its content has hash "+sum)
	}
	return nil
}

func hashFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
