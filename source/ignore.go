package source

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"kontiki/errs"
)

// ignoreFile, at the top of a folder, says what of it is not packed.
const ignoreFile = ".kontikiignore"

// rule is one line of it, in the manner of gitignore.
type rule struct {
	segments []string // patterns for the elements of a path; "**" stands for any number of them
	negate   bool     // "!": pack it after all
	dirOnly  bool     // a trailing slash
}

// ignores is the rules of a folder; the last that matches decides.
type ignores []rule

func loadIgnores(dir string) (ignores, error) {
	b, err := os.ReadFile(filepath.Join(dir, ignoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ignoreFile, err)
	}
	return parseIgnores(b)
}

func parseIgnores(b []byte) (ignores, error) {
	var rules ignores
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		r, ok, err := parseRule(lines.Text())
		if err != nil {
			return nil, errs.New(errs.Invalid, "%s:%d: %q: %w", ignoreFile, n, lines.Text(), err).WithField(ignoreFile).
				WithHint("write patterns as for .gitignore")
		}
		if ok {
			rules = append(rules, r)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", ignoreFile, err).WithField(ignoreFile)
	}
	return rules, nil
}

// parseRule reads one line; ok is false for an empty one or a comment.
func parseRule(line string) (r rule, ok bool, err error) {
	line = trimSpaces(strings.TrimSuffix(line, "\r"))
	if line == "" || line[0] == '#' {
		return rule{}, false, nil
	}
	if line, r.negate = strings.CutPrefix(line, "!"); line == "" {
		return rule{}, false, errors.New("the ! has no pattern behind it")
	}
	line, r.dirOnly = strings.CutSuffix(line, "/")
	anchored := strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if line == "" {
		return rule{}, false, errors.New("a slash alone names nothing")
	}
	r.segments = strings.Split(line, "/")
	if !anchored {
		r.segments = append([]string{"**"}, r.segments...)
	}
	if last := len(r.segments) - 1; last > 0 && r.segments[last] == "**" {
		r.segments = append(r.segments, "*") // "a/**" is what is in a, not a itself
	}
	for _, s := range r.segments {
		if _, err := path.Match(s, ""); err != nil {
			return rule{}, false, err
		}
	}
	return r, true, nil
}

// trimSpaces cuts trailing spaces but one that is escaped.
func trimSpaces(line string) string {
	cut := strings.TrimRight(line, " \t")
	if strings.HasSuffix(cut, `\`) && len(cut) < len(line) {
		return cut + line[len(cut):len(cut)+1]
	}
	return cut
}

// match reports whether a path is left out.
func (rules ignores) match(name string, dir bool) bool {
	elements := strings.Split(name, "/")
	for i := len(rules) - 1; i >= 0; i-- {
		if r := rules[i]; (dir || !r.dirOnly) && matchSegments(r.segments, elements) {
			return !r.negate
		}
	}
	return false
}

// matchSegments works through the pattern once, keeping which lengths of the path it matches so far, so that no
// pattern takes longer than pattern times path.
func matchSegments(pattern, elements []string) bool {
	reach := make([]bool, len(elements)+1)
	reach[0] = true
	for _, p := range pattern {
		next := make([]bool, len(reach))
		for i := range reach {
			switch {
			case p == "**":
				next[i] = reach[i] || i > 0 && next[i-1]
			case i > 0 && reach[i-1]:
				next[i], _ = path.Match(p, elements[i-1]) // parseRule has refused bad patterns
			}
		}
		reach = next
	}
	return reach[len(elements)]
}
