package cmd

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"kontiki/testdata"
)

// editionMark is how every page of the test site says which edition it is of.
const editionMark = `<meta name="edition" content="%s">`

// edition is one version of the demo's site.
type edition struct {
	name  string
	dir   string            // where it lies, ready to be deployed
	pages map[string][]byte // URL path to body, of every page that carries the edition's mark
	files map[string][]byte // the same of all files
}

// newEdition writes the test site into a folder, its pages marked with the name.
func newEdition(dir, name string) (edition, error) {
	e := edition{name: name, dir: filepath.Join(dir, "site-"+name), pages: map[string][]byte{}, files: map[string][]byte{}}
	site := testdata.Site()
	original, mark := fmt.Appendf(nil, editionMark, "first"), fmt.Appendf(nil, editionMark, name)
	err := fs.WalkDir(site, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(site, file)
		if err != nil {
			return err
		}
		body = bytes.Replace(body, original, mark, 1)
		e.files[urlPath(file)] = body
		if bytes.Contains(body, mark) {
			e.pages[urlPath(file)] = body
		}
		target := filepath.Join(e.dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, body, 0o644)
	})
	if err != nil {
		return edition{}, fmt.Errorf("write the %s edition: %w", name, err)
	}
	return e, nil
}

// urlPath is where a file of a site is served.
func urlPath(file string) string {
	if path.Base(file) == "index.html" {
		return "/" + strings.TrimSuffix(file, "index.html")
	}
	return "/" + file
}

// paths lists where the edition's pages are served, sorted.
func (e edition) paths() []string {
	all := make([]string, 0, len(e.pages))
	for p := range e.pages {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}
