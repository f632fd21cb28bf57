package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

func newContext(a *app) *cobra.Command {
	set := &cobra.Command{
		Use: "set", Short: "Store --server, --token and --ca in the context file", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runContextSet(a) },
	}
	c := group("context", "Show which cluster the commands talk to", func(*cobra.Command, []string) error { return runContext(a) }, set)
	c.Long = `Shows which cluster the commands talk to. Each part comes from a flag, else from the environment
(KONTIKI_SERVER, KONTIKI_TOKEN, KONTIKI_CA), else from the context file: ~/.config/kontiki/context.yaml,
or the file that KONTIKI_CONTEXT names. The token itself is not shown.`
	return c
}

func runContext(a *app) error {
	x, err := a.resolve()
	if err != nil {
		return err
	}
	file, err := a.contextPath()
	if err != nil {
		return err
	}
	token := "none"
	if x.token != "" {
		token = "set"
	}
	if a.json {
		return a.printJSON(map[string]any{"file": file, "servers": x.servers, "token_set": x.token != "", "ca": x.ca})
	}
	return a.table(nil, [][]string{{"file", file}, {"server", strings.Join(x.servers, ", ")}, {"token", token}, {"ca", orDash(x.ca)}})
}

func runContextSet(a *app) error {
	if len(a.access.servers) == 0 && a.access.token == "" && a.access.ca == "" {
		return usage("kontiki context set --server https://… --token … --ca …", "nothing to store is given")
	}
	x, err := a.loadContext()
	if err != nil {
		return err
	}
	if len(a.access.servers) > 0 {
		x.servers = a.access.servers
	}
	x.token, x.ca = first(a.access.token, x.token), first(a.access.ca, x.ca)
	file, err := a.saveContext(x)
	if err != nil {
		return err
	}
	a.say("stored in %s", file)
	return nil
}

// saveContext replaces the context file, readable by its owner only, and gives its path.
func (a *app) saveContext(x access) (string, error) {
	file, err := a.contextPath()
	if err != nil {
		return "", err
	}
	content, err := yaml.Marshal(yaml.MapSlice{{Key: "server", Value: strings.Join(x.servers, ",")}, {Key: "token", Value: x.token}, {Key: "ca", Value: x.ca}})
	if err != nil {
		return "", fmt.Errorf("encode context: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("make folder of the context file: %w", err)
	}
	temporary := file + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return "", fmt.Errorf("write context file: %w", err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return "", fmt.Errorf("write context file: %w", err)
	}
	return file, nil
}
