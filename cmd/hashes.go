package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"kontiki/api"
)

type hashesCmd struct{ app *app }

func newHashes(a *app) *cobra.Command {
	h := &hashesCmd{app: a}
	return &cobra.Command{
		Use: "hashes", Short: "Compare the nodes' states at one log index; exit code 1 when they differ", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return h.run(c.Context()) },
	}
}

func (h *hashesCmd) run(ctx context.Context) error {
	c, err := h.app.client()
	if err != nil {
		return err
	}
	hashes, err := c.Hashes(ctx)
	if err != nil {
		return err
	}
	if err := h.print(hashes); err != nil {
		return err
	}
	if !hashes.Equal {
		return errors.New("the nodes do not all have the same state: see which answered with kontiki peers")
	}
	return nil
}

func (h *hashesCmd) print(hashes api.Hashes) error {
	if h.app.json {
		return h.app.printJSON(hashes)
	}
	var rows [][]string
	for _, node := range slices.Sorted(maps.Keys(hashes.Hashes)) {
		rows = append(rows, []string{node, fmt.Sprint(hashes.Index), hashes.Hashes[node]})
	}
	for _, node := range slices.Sorted(maps.Keys(hashes.Errors)) {
		rows = append(rows, []string{node, fmt.Sprint(hashes.Index), hashes.Errors[node]})
	}
	return h.app.table([]string{"node", "index", "hash"}, rows)
}
