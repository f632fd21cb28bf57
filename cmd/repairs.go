package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

type repairsCmd struct {
	app    *app
	filter client.RepairFilter
}

func newRepairs(a *app) *cobra.Command {
	r := &repairsCmd{app: a}
	c := &cobra.Command{
		Use: "repairs", Short: "List what the leader ordered nodes to mend, and what came of it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return r.run(c.Context()) },
	}
	c.Flags().StringVar(&r.filter.Node, "node", "", "only of this node")
	return c
}

func (r *repairsCmd) run(ctx context.Context) error {
	c, err := r.app.client()
	if err != nil {
		return err
	}
	var all []fsm.Repair
	list := func(l client.List) (api.Page[fsm.Repair], error) {
		f := r.filter
		f.List = l
		return c.Repairs(ctx, f)
	}
	for one, err := range client.All(list) {
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	head := []string{"ordered", "kind", "node", "project", "state", "attempt", "reason", "message"}
	return printList(r.app, all, head, func(r fsm.Repair) []string {
		return []string{age(r.OrderedAt), string(r.Kind), r.Node, orDash(r.Project), string(r.State), fmt.Sprint(r.Attempt), r.Reason, r.Message}
	})
}
