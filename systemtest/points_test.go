package systemtest

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

// covered says of the points that no upload deployment on the embedded engine reaches, by the beginning of their names,
// which test breaks off at each of them, as package.Function.
var covered = map[string]string{
	"cluster.snapshot.": "cluster.TestFaultPoints",
	"cluster.truncate.": "cluster.TestFaultPoints",
	"docker.":           "docker.TestCutOffAtEveryPointAndRunAgain",
	"node.logs.remove.": "node.TestLogsOfForgottenDeploymentsGo",
}

// coveredBy gives the test that covers a point which uploads do not reach, "" for all others.
func coveredBy(point string) string {
	for prefix, test := range covered {
		if strings.HasPrefix(point, prefix) {
			return test
		}
	}
	return ""
}

// founding are the points that making a cluster, joining it and electing its leader reach, and deployments do not. They
// have tests of their own: TestAnInitThatIsCutOff, TestKillTheLeaderWhileANodeJoins and TestKillAVoterInTheElection.
var founding = []string{"cluster.members.after", "cluster.members.before", "cluster.term.after", "cluster.term.before",
	"pki.save.after", "pki.save.before"}

// sourceTree gives the syntax of the module's Go files, by path from its root.
func sourceTree(t testing.TB, tests bool) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") != tests {
			return nil
		}
		b, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		files[name], err = parser.ParseFile(token.NewFileSet(), name, b, parser.SkipObjectResolution)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// allPoints gives the names of all fault points in the sources, sorted. A name that is no literal could not be listed
// and fails the test.
func allPoints(t testing.TB) []string {
	t.Helper()
	var names []string
	for file, syntax := range sourceTree(t, false) {
		ast.Inspect(syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || fun.Sel.Name != "Point" {
				return true
			}
			if pkg, ok := fun.X.(*ast.Ident); !ok || pkg.Name != "fault" {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the name of a fault point is not a literal", file)
				return true
			}
			name, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
			return true
		})
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			t.Errorf("two fault points are called %s", names[i])
		}
	}
	return slices.Compact(names)
}

// uploadPoints gives the points that an upload deployment reaches, from the queue to the removal of its release.
func uploadPoints(t testing.TB) []string {
	t.Helper()
	return slices.DeleteFunc(allPoints(t), func(p string) bool {
		return coveredBy(p) != "" || slices.Contains(founding, p)
	})
}

// testLiterals gives the strings that stand in each test of the tree, by package.Function.
func testLiterals(t testing.TB) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for name, syntax := range sourceTree(t, true) {
		for _, decl := range syntax.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			key := path.Dir(name) + "." + f.Name.Name
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					found[key] = append(found[key], strings.Trim(lit.Value, "\"`"))
				}
				return true
			})
		}
	}
	return found
}
