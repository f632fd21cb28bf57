package source

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"kontiki/errs"
)

// KindStatic is the kind of a site of plain files.
const KindStatic = "static"

// Manifest says what a release consists of, to the byte.
type Manifest struct {
	Root  string `json:"root"` // the archive's directory that is the site, "" for its top
	Kind  string `json:"kind"`
	Files []File `json:"files"` // sorted by path
}

// File is one file of a release or of a folder to pack.
type File struct {
	Path   string      `json:"path"` // slash-separated, relative to the site's root
	Size   int64       `json:"size"` // bytes
	Mode   fs.FileMode `json:"mode"` // 0644 or 0755
	SHA256 string      `json:"sha256,omitempty"`
}

// Encode gives the one encoding of a manifest.
func (m Manifest) Encode() []byte {
	if m.Files == nil {
		m.Files = []File{}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return b
}

// Bytes is how much all files hold.
func (m Manifest) Bytes() int64 {
	var sum int64
	for _, f := range m.Files {
		sum += f.Size
	}
	return sum
}

// DecodeManifest reads what Encode gave and trusts none of it: names are checked as those of an archive are. The error
// is of code Invalid.
func DecodeManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, badManifest("%w", err)
	}
	if err := m.check(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

func badManifest(format string, args ...any) error {
	return errs.New(errs.Invalid, "manifest: %w", fmt.Errorf(format, args...)).
		WithHint("build it again from the uploaded archive")
}

func (m Manifest) check() error {
	if m.Kind != KindStatic {
		return badManifest("unknown kind %q", m.Kind)
	}
	if m.Root != "" && checkName(m.Root) != nil {
		return badManifest("root %q: %w", m.Root, checkName(m.Root))
	}
	names := newTree(len(m.Files) * maxDepth)
	for i, f := range m.Files {
		err := checkName(f.Path)
		if err == nil {
			err = names.add(f.Path, false)
		}
		if err == nil {
			err = f.check()
		}
		if err == nil && i > 0 && m.Files[i-1].Path >= f.Path {
			err = errors.New("the files are not sorted")
		}
		if err != nil {
			return badManifest("file %d %q: %w", i+1, f.Path, err)
		}
	}
	return nil
}

func (f File) check() error {
	sum, err := hex.DecodeString(f.SHA256)
	switch {
	case err != nil || len(sum) != sha256.Size:
		return fmt.Errorf("%q is not a SHA-256", f.SHA256)
	case f.Size < 0:
		return errors.New("the size is negative")
	case f.Mode != 0o644 && f.Mode != 0o755:
		return fmt.Errorf("the mode %o is neither 644 nor 755", f.Mode)
	}
	return nil
}

// Equal reports whether two manifests ask for the same tree.
func (m Manifest) Equal(other Manifest) bool { return bytes.Equal(m.Encode(), other.Encode()) }

func sortFiles(files []File) {
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
}
