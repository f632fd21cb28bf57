package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

type logsCmd struct {
	app    *app
	follow bool
	shown  map[logKey]int // lines of each step's log that were printed
}

// logKey names the log of one try of a phase on one node.
type logKey struct {
	node    string
	phase   fsm.Phase
	attempt int
}

func newLogs(a *app) *cobra.Command {
	l := &logsCmd{app: a, shown: map[logKey]int{}}
	c := &cobra.Command{
		Use: "logs <project | deployment>", Short: "Show what a deployment's steps wrote, on all its nodes", Args: cobra.ExactArgs(1),
		Long: "Shows what a deployment's steps wrote, merged from all its nodes by time. For a project it is its newest deployment.",
		RunE: func(c *cobra.Command, args []string) error { return l.run(c.Context(), args[0]) },
	}
	c.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on until the deployment has come to its end")
	return c
}

func (l *logsCmd) run(ctx context.Context, name string) error {
	c, err := l.app.client()
	if err != nil {
		return err
	}
	id, err := deploymentOf(ctx, c, name)
	if err != nil {
		return err
	}
	if err := l.print(ctx, c, id); err != nil || !l.follow {
		return err
	}
	return c.Follow(ctx, id, c.Index(), func(e api.Event) error {
		if e.Type == api.EventProgress {
			return nil
		}
		return l.print(ctx, c, id)
	})
}

// print shows the lines that were not shown yet.
func (l *logsCmd) print(ctx context.Context, c *client.Client, id string) error {
	logs, err := c.Logs(ctx, id)
	if err != nil {
		return err
	}
	at := map[logKey]int{}
	for _, line := range logs.Lines {
		key := logKey{line.Node, line.Phase, line.Attempt}
		if at[key]++; at[key] <= l.shown[key] {
			continue
		}
		l.shown[key] = at[key]
		if err := l.printLine(line); err != nil {
			return err
		}
	}
	return nil
}

func (l *logsCmd) printLine(line api.LogLine) error {
	if l.app.json {
		return l.app.printJSON(line)
	}
	_, err := fmt.Fprintf(l.app.Out, "%s  %-8s %-17s %s\n", clock(line.At), line.Node, line.Phase, line.Line)
	return err
}

// deploymentOf gives the ID itself, or the newest deployment of the project of that name.
func deploymentOf(ctx context.Context, c *client.Client, name string) (string, error) {
	if fsm.ValidID(name) {
		return name, nil
	}
	if _, err := c.Project(ctx, name); err != nil {
		return "", err
	}
	newest, err := c.Deployments(ctx, client.Filter{Project: name, List: client.List{Limit: 1}})
	if err != nil {
		return "", err
	}
	if len(newest.Items) == 0 {
		return "", &exitError{code: ExitNotFound, err: fmt.Errorf("project %s has no deployment yet: kontiki deploy ./site --project %s", name, name)}
	}
	return newest.Items[0].ID, nil
}
