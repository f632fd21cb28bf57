// Package kontiki_test checks the shape of the whole tree: who may import whom, and how large files and functions are.
package kontiki_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	mostFileLines     = 400
	mostFunctionLines = 60
)

// arrows says which of our packages each package may import. Only cmd imports node.
var arrows = map[string][]string{
	"errs":             {},
	"fault":            {},
	"pki":              {"errs", "fault"},
	"fsm":              {"errs", "fault"},
	"artifact":         {"errs", "fault"},
	"source":           {"errs", "fault"},
	"static":           {"errs", "fault", "source"},
	"cluster":          {"errs", "fault", "fsm", "pki"},
	"reconcile":        {"errs", "fault", "fsm"},
	"agent":            {"errs", "fault", "fsm"},
	"docker":           {"errs", "fault", "fsm"},
	"ingress":          {"errs", "fault", "fsm"},
	"api":              {"errs", "fsm"},
	"httpapi":          {"api", "errs", "fault", "fsm"},
	"client":           {"api", "errs", "fault", "fsm"},
	"node":             {"agent", "api", "artifact", "client", "cluster", "docker", "errs", "fault", "fsm", "httpapi", "ingress", "pki", "reconcile", "source", "static"},
	"cmd":              {"api", "client", "errs", "fsm", "node", "pki", "source", "static", "testdata"},
	"cmd/kontiki":      {"cmd"},
	"testdata":         {},
	"testdata/gensite": {},
}

// importers names the one package that may import a library, by the beginning of the library's path. An empty name
// means any package, "test" any test.
var importers = map[string]string{
	"github.com/hashicorp/raft":           "cluster",
	"github.com/hashicorp/raft-boltdb":    "cluster",
	"github.com/hashicorp/go-hclog":       "cluster",
	"go.etcd.io/bbolt":                    "cluster",
	"github.com/hashicorp/go-memdb":       "fsm",
	"github.com/fxamacker/cbor":           "fsm",
	"github.com/oklog/ulid":               "fsm",
	"github.com/docker/docker":            "docker",
	"github.com/docker/go-connections":    "docker",
	"github.com/containerd/errdefs":       "docker",
	"github.com/opencontainers":           "docker",
	"github.com/gin-gonic/gin":            "httpapi",
	"github.com/prometheus/client_golang": "httpapi",
	"github.com/spf13":                    "cmd",
	"github.com/goccy/go-yaml":            "cmd",
	"golang.org/x/term":                   "cmd",
	"github.com/klauspost/compress":       "source",
	"golang.org/x/sys":                    "",
	"github.com/google/go-cmp":            "test",
	"go.uber.org/goleak":                  "test",
	"pgregory.net/rapid":                  "test",
}

var emptyNames = []string{"common", "helper", "helpers", "misc", "models", "pkg", "shared", "types", "util", "utils"}

type sourceFile struct {
	name, dir string // slash paths from the root of the tree
	test      bool
	syntax    *ast.File
	fset      *token.FileSet
}

func TestEveryImportFollowsTheArrows(t *testing.T) {
	files := parseTree(t)
	onlyTests := testOnlyPackages(files)
	for _, f := range files {
		allowed, known := arrows[f.dir]
		if !known && !onlyTests[f.dir] {
			t.Errorf("%s: package %s is not in the table of arrows: say there what it may import", f.name, f.dir)
			continue
		}
		for _, imported := range f.imports(t) {
			own, ours := strings.CutPrefix(imported, "kontiki/")
			switch {
			case ours && !f.test && !slices.Contains(allowed, own):
				t.Errorf("%s imports %s: package %s may import only %v", f.name, own, f.dir, allowed)
			case ours && own == "node" && f.dir != "cmd" && f.dir != "node" && !onlyTests[f.dir]:
				t.Errorf("%s imports node: only cmd and system tests may", f.name)
			case !ours && isLibrary(imported):
				checkLibrary(t, f, imported)
			}
		}
	}
}

func checkLibrary(t *testing.T, f sourceFile, library string) {
	t.Helper()
	for prefix, importer := range importers {
		if library != prefix && !strings.HasPrefix(library, prefix+"/") {
			continue
		}
		// A test may compare with any library that is there; what ships has one importer.
		if !f.test && importer != "" && importer != f.dir {
			t.Errorf("%s imports %s, which is for package %s", f.name, library, importer)
		}
		return
	}
	t.Errorf("%s imports %s, which has no importer in the table: every library has exactly one", f.name, library)
}

func TestNoPackageHasAnEmptyName(t *testing.T) {
	for _, f := range parseTree(t) {
		for part := range strings.SplitSeq(f.dir, "/") {
			if slices.Contains(emptyNames, part) {
				t.Errorf("%s: a folder called %q says nothing; name it for what it is about", f.name, part)
			}
		}
	}
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	for _, f := range parseTree(t) {
		if f.test {
			continue
		}
		if lines := f.fset.File(f.syntax.Pos()).LineCount(); lines > mostFileLines {
			t.Errorf("%s has %d lines, the most is %d", f.name, lines, mostFileLines)
		}
		for _, decl := range f.syntax.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
			if lines > mostFunctionLines {
				t.Errorf("%s: %s has %d lines, the most is %d", f.name, fn.Name.Name, lines, mostFunctionLines)
			}
		}
	}
}

// parseTree reads every Go file of the module, also those below testdata that are packages.
func parseTree(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		f := sourceFile{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet()}
		f.syntax, err = parser.ParseFile(f.fset, name, nil, parser.SkipObjectResolution)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// testOnlyPackages gives the folders that have test files only: the system tests, which may import anything of ours.
func testOnlyPackages(files []sourceFile) map[string]bool {
	only := map[string]bool{}
	for _, f := range files {
		previous, seen := only[f.dir]
		only[f.dir] = f.test && (previous || !seen)
	}
	return only
}

func (f sourceFile) imports(t *testing.T) []string {
	t.Helper()
	paths := make([]string, len(f.syntax.Imports))
	for i, spec := range f.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		paths[i] = p
	}
	return paths
}

// isLibrary reports whether the path is of a third-party module: its first element has a dot.
func isLibrary(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return strings.Contains(first, ".")
}
