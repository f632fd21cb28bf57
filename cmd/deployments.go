package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

type deploymentsCmd struct {
	app    *app
	filter client.Filter
	most   int
}

func newDeployments(a *app) *cobra.Command {
	d := &deploymentsCmd{app: a}
	c := &cobra.Command{
		Use: "deployments", Short: "List deployments, newest first", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	c.Flags().StringVar(&d.filter.Project, "project", "", "only of this project")
	c.Flags().StringVar((*string)(&d.filter.Status), "status", "", "only with this status: queued, running, active, superseded, failed or cancelled")
	c.Flags().StringVar((*string)(&d.filter.Phase), "phase", "", "only in this phase")
	c.Flags().IntVar(&d.most, "limit", 20, "at most so many, 0 for all")
	return c
}

func (d *deploymentsCmd) run(ctx context.Context) error {
	if d.most < 0 {
		return usage("give 0 for all, or a number above it", "--limit is %d", d.most)
	}
	c, err := d.app.client()
	if err != nil {
		return err
	}
	var found []fsm.Deployment
	list := func(l client.List) (api.Page[fsm.Deployment], error) {
		f := d.filter
		f.List = l
		return c.Deployments(ctx, f)
	}
	for one, err := range client.All(list) {
		if err != nil {
			return err
		}
		if found = append(found, one); len(found) == d.most {
			break
		}
	}
	head := []string{"deployment", "project", "number", "status", "phase", "progress", "nodes", "created"}
	return printList(d.app, found, head, func(d fsm.Deployment) []string {
		return []string{d.ID, d.Project, fmt.Sprint(d.Number), string(d.Status), string(d.Phase), fmt.Sprintf("%d %%", d.PhaseProgress), serving(d), age(d.CreatedAt)}
	})
}

// serving says on how many of its nodes a deployment is ready.
func serving(d fsm.Deployment) string {
	if len(d.Targets) == 0 {
		return "-"
	}
	return fmt.Sprintf("%d of %d", len(d.Instances), len(d.Targets))
}
