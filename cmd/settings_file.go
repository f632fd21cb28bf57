package cmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"kontiki/errs"
)

// value is a configured text and where it stands, for messages: a flag, an environment variable or file:line:key.
type value struct{ text, origin string }

// readYAML reads a flat YAML file: one scalar per key, only the keys named. Keys that begin with "x-" are the user's
// own. Errors lead to exit code 2 and name file, line and key.
func readYAML(file string, keys []string) (map[string]value, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("give an existing file with --config", "read configuration: %w", err)
	}
	tree, err := parser.ParseBytes(content, 0)
	if err != nil {
		return nil, badYAML(file, err)
	}
	found := map[string]value{}
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		mapping, ok := doc.Body.(ast.MapNode)
		if !ok {
			return nil, usage("write it as key: value", "%s:%d: not a list of keys", file, line(doc.Body))
		}
		for entries := mapping.MapRange(); entries.Next(); {
			if err := addEntry(file, entries.KeyValue(), keys, found); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

func addEntry(file string, entry *ast.MappingValueNode, keys []string, found map[string]value) error {
	key := entry.Key.GetToken().Value
	origin := fmt.Sprintf("%s:%d:%s", file, line(entry.Key), key)
	switch {
	case strings.HasPrefix(key, "x-"):
		return nil
	case !slices.Contains(keys, key):
		hint := "the keys are: " + strings.Join(keys, ", ")
		if near := errs.Nearest(key, keys); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		return usage(hint, "%s: unknown key", origin)
	case found[key].origin != "":
		return usage("keep one of the two", "%s: stands twice, first at %s", origin, found[key].origin)
	}
	scalar, ok := entry.Value.(ast.ScalarNode)
	if !ok {
		return usage("write it as key: value", "%s: not a single value", origin)
	}
	found[key] = value{text: scalarText(scalar), origin: origin}
	return nil
}

// scalarText gives a scalar as it was written, so that 0644 stays 0644; null is "".
func scalarText(n ast.ScalarNode) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return ""
	case *ast.LiteralNode:
		return n.Value.Value
	}
	return n.GetToken().Value
}

func line(n ast.Node) int { return n.GetToken().Position.Line }

func badYAML(file string, err error) error {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil {
		return usage("kontiki.example.yaml shows the form", "%s:%d: %s", file, syntax.Token.Position.Line, syntax.Message)
	}
	return usage("kontiki.example.yaml shows the form", "%s: %w", file, err)
}
