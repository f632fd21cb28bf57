package cmd

import (
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/node"
)

type versionCmd struct {
	app    *app
	client bool
}

func newVersion(a *app) *cobra.Command {
	v := &versionCmd{app: a}
	c := &cobra.Command{
		Use: "version", Short: "Show the version of this program and of the node it talks to", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return v.run(c.Context()) },
	}
	c.Flags().BoolVar(&v.client, "client", false, "only of this program; ask no node")
	return c
}

func (v *versionCmd) run(ctx context.Context) error {
	out := struct {
		Version string       `json:"version"`
		Go      string       `json:"go"`
		Server  *api.Version `json:"server,omitempty"`
		Problem string       `json:"problem,omitempty"` // why there is no server
	}{Version: node.Version, Go: runtime.Version()}
	if !v.client {
		server, err := v.ask(ctx)
		if err == nil {
			out.Server = &server
		} else {
			out.Problem = errs.From(err).Message
		}
	}
	if v.app.json {
		return v.app.printJSON(out)
	}
	rows := [][]string{{"kontiki", out.Version, out.Go}}
	switch {
	case out.Server != nil:
		rows = append(rows, []string{"node " + out.Server.Node, out.Server.Version, out.Server.Go})
	case !v.client:
		rows = append(rows, []string{"node", "not reached: " + out.Problem, ""})
	}
	return v.app.table(nil, rows)
}

// ask gives a node a moment: the version of this program is worth showing without one.
func (v *versionCmd) ask(ctx context.Context) (api.Version, error) {
	c, err := v.app.client()
	if err != nil {
		return api.Version{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.Version(ctx)
}
