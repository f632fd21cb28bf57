package source

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName    = 1024 // bytes of a whole path
	maxElement = 255  // bytes of one element, as file systems have it
	maxDepth   = 64   // elements of a path, so that few names cannot ask for a million folders
)

// cleanName turns an archive's spelling of a name into a slash-separated relative path: "./a/b" and, for directories,
// "a/b/". The directory the archive is about itself ("./") gives "". The error is the reason alone.
func cleanName(name string, dir bool) (string, error) {
	if dir {
		name = strings.TrimSuffix(name, "/")
		if name == "." || name == "./" {
			return "", nil
		}
	}
	for strings.HasPrefix(name, "./") {
		name = name[2:]
	}
	return name, checkName(name)
}

// checkName reports why a path must not reach a disk, or nil.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name is longer than %d bytes", maxName)
	case !utf8.ValidString(name):
		return errors.New("the name is not valid UTF-8")
	case name[0] == '/':
		return errors.New("the name is absolute")
	case strings.Contains(name, `\`):
		return errors.New("the name has a backslash")
	case strings.ContainsFunc(name, deceptive):
		return errors.New("the name has a control or bidirectional character")
	case strings.Count(name, "/") >= maxDepth:
		return fmt.Errorf("the name is more than %d directories deep", maxDepth)
	}
	for element := range strings.SplitSeq(name, "/") {
		switch {
		case element == "..":
			return errors.New("the name leads out of the archive")
		case element == "" || element == ".":
			return errors.New("the name has an empty element")
		case len(element) > maxElement:
			return fmt.Errorf("an element of the name is longer than %d bytes", maxElement)
		}
	}
	return nil
}

// deceptive reports characters that are not seen or that reorder what is: a name must look like what it is.
func deceptive(r rune) bool {
	switch {
	case unicode.IsControl(r), r == '\u2028', r == '\u2029':
		return true
	case r == '\u061c', r == '\u200e', r == '\u200f':
		return true
	}
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// tree notices names that cannot be on one disk together: the same twice, or one as a file and as a directory.
type tree struct {
	seen  map[string]kind
	limit int // of directories
	dirs  int
}

type kind byte

const (
	isFile   kind = iota + 1
	isDir         // named by an entry
	isParent      // only implied by what is in it
)

func newTree(limit int) *tree { return &tree{seen: map[string]kind{}, limit: limit} }

// add notes a checked name; the error is the reason alone.
func (t *tree) add(name string, dir bool) error {
	switch had := t.seen[name]; {
	case had == isFile && !dir, had == isDir && dir:
		return errors.New("the name is there twice")
	case had == isFile, had != 0 && !dir:
		return errors.New("the name is there as a file and as a directory")
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		if err := t.parent(name[:i]); err != nil {
			return err
		}
	}
	if !dir {
		t.seen[name] = isFile
		return nil
	}
	if t.seen[name] == 0 {
		t.dirs++
	}
	t.seen[name] = isDir
	return nil
}

func (t *tree) parent(name string) error {
	switch t.seen[name] {
	case isFile:
		return fmt.Errorf("its directory %q is there as a file", name)
	case isDir, isParent:
		return nil
	}
	if t.dirs++; t.dirs > t.limit {
		return fmt.Errorf("there are more than %d directories", t.limit)
	}
	t.seen[name] = isParent
	return nil
}
