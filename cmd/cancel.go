package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type cancelCmd struct {
	app *app
	yes bool
}

func newCancel(a *app) *cobra.Command {
	k := &cancelCmd{app: a}
	c := &cobra.Command{
		Use: "cancel <deployment>", Short: "Stop a queued or running deployment; what serves goes on serving", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return k.run(c.Context(), args[0]) },
	}
	c.Flags().BoolVar(&k.yes, "yes", false, "do not ask")
	return c
}

func (k *cancelCmd) run(ctx context.Context, id string) error {
	if err := k.app.confirm(k.yes, "Cancel deployment "+id+"?"); err != nil {
		return err
	}
	c, err := k.app.client()
	if err != nil {
		return err
	}
	d, err := c.Cancel(ctx, id)
	if err != nil {
		return err
	}
	if k.app.json {
		return k.app.printJSON(d)
	}
	k.app.say("deployment %s of project %s is %s", d.ID, d.Project, d.Status)
	return nil
}
