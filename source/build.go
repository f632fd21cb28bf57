package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"kontiki/errs"
)

const indexFile = "index.html"

// macResources is where macOS keeps attributes in the zips it makes.
const macResources = "__MACOSX"

// Build reads an archive once and writes down the site in it. The site's root is the archive's top when index.html is
// there, or else the one directory at the top, when it holds index.html and nothing but hidden files is beside it. The
// errors are Walk's, and NoIndex.
func Build(ctx context.Context, file *os.File, format Format, limits Limits) (Manifest, error) {
	var files []File
	hash := sha256.New()
	buf := make([]byte, copySize)
	err := Walk(ctx, file, format, limits, func(e Entry, r io.Reader) error {
		if e.Dir {
			return nil
		}
		hash.Reset()
		size, err := io.CopyBuffer(hash, r, buf)
		files = append(files, File{Path: e.Name, Size: size, Mode: e.Mode, SHA256: hex.EncodeToString(hash.Sum(nil))})
		return err
	})
	if err != nil {
		return Manifest{}, err
	}
	root, err := siteRoot(files)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{Root: root, Kind: KindStatic, Files: make([]File, 0, len(files))}
	for _, f := range files {
		if rel, ok := under(root, f.Path); ok {
			f.Path = rel
			m.Files = append(m.Files, f)
		}
	}
	sortFiles(m.Files)
	return m, nil
}

// siteRoot finds the directory that is the site.
func siteRoot(files []File) (string, error) {
	top := map[string]bool{} // what is at the top, hidden files aside; directories end in a slash
	index := map[string]bool{}
	for _, f := range files {
		first, rest, isDir := strings.Cut(f.Path, "/")
		if isDir {
			first += "/"
			index[first] = index[first] || rest == indexFile
		}
		if first[0] != '.' && first != macResources+"/" {
			top[first] = true
		}
	}
	if top[indexFile] {
		return "", nil
	}
	names := slices.Sorted(maps.Keys(top))
	if len(names) == 1 && index[names[0]] {
		return strings.TrimSuffix(names[0], "/"), nil
	}
	return "", noIndex(names)
}

func noIndex(names []string) error {
	looked := "at the top of the archive"
	if len(names) == 1 && strings.HasSuffix(names[0], "/") {
		looked += " and in " + names[0]
	}
	const shown = 8
	found := "nothing but hidden files"
	if len(names) > 0 {
		found = strings.Join(names[:min(len(names), shown)], ", ")
	}
	if len(names) > shown {
		found += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return errs.New(errs.NoIndex, "no index.html: looked %s, which holds %s", looked, found).
		WithHint("pack the folder that holds index.html, after building the site if it needs building")
}

// under gives a path relative to a root, if it is there.
func under(root, path string) (string, bool) {
	if root == "" {
		return path, true
	}
	return strings.CutPrefix(path, root+"/")
}
