package cmd

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kontiki/client"
	"kontiki/node"
)

const (
	demoProject = "drift"
	demoLimit   = 3 * time.Minute // after which something is wrong and the demo fails
)

type demoCmd struct {
	app    *app
	keep   bool
	engine string
}

func newDemo(a *app) *cobra.Command {
	d := &demoCmd{app: a}
	c := &cobra.Command{
		Use: "demo", Short: "Watch three nodes redeploy a site and survive the death of their leader", Args: cobra.NoArgs,
		Long: `Starts three nodes as processes of their own on loopback, deploys a site of 301 files through a follower,
and asks all three for its pages all the time, as a load balancer with retries would. Then it deploys a second
version, kills the leader (SIGKILL) in the middle of a phase, shows the deployment reach active under the next
leader, restarts the dead node and shows it catch up.

It ends with exit code 0 only if no request failed, all three nodes have the same state, and every page of the new
version is served by each of them. Nothing is left behind unless --keep is given; with --engine docker the image
of the project server stays in the engine.`,
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	c.Flags().BoolVar(&d.keep, "keep", false, "leave the cluster running and print how to reach it")
	c.Flags().StringVar(&d.engine, "engine", node.EngineEmbedded, "what serves the site: embedded, docker or auto")
	return c
}

func (d *demoCmd) run(ctx context.Context) error {
	if err := oneOf(node.EngineEmbedded, node.EngineDocker, node.EngineAuto)(d.engine); err != nil {
		return configError(err)
	}
	dir, err := os.MkdirTemp("", "kontiki-demo-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	s := &show{app: d.app, dir: dir, engine: d.engine, started: time.Now()}
	if err := s.run(ctx); err != nil || !d.keep {
		s.end(err)
		return err
	}
	return s.printAccess()
}

// show is one run of the demo.
type show struct {
	app         *app
	dir, engine string
	started     time.Time
	nodes       []*process
	token, ca   string
	host        string // under which ingress serves the site
	editions    [2]edition
	probe       *probe
	result      demoResult
	silent      bool // the nodes' logs explain nothing: the demo ran to its end
}

func (s *show) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	for _, act := range []func(context.Context) error{s.startCluster, s.deployFirst, s.redeploy, s.bringBack, s.verify} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	s.silent = true
	return s.judge()
}

// tell prints what happens, as it happens.
func (s *show) tell(format string, args ...any) {
	s.app.say("%6.2fs  %s", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}

// end stops what the demo started and removes what it wrote; after a failure it shows the nodes' last words.
func (s *show) end(failure error) {
	if s.probe != nil {
		s.probe.stop()
	}
	if failure == nil {
		s.removeSite()
	}
	for _, p := range s.nodes {
		p.end()
	}
	if failure != nil && !s.silent {
		for _, p := range s.nodes {
			s.app.say("last log lines of %s:\n%s", p.name, p.lastLines(8))
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.app.say("left behind: %s (%v)", s.dir, err)
	}
}

// removeSite deletes the project, so that an engine outside our processes keeps nothing.
func (s *show) removeSite() {
	if s.engine == node.EngineEmbedded {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := s.client(s.nodes...)
	if err == nil {
		err = c.DeleteProject(ctx, demoProject)
	}
	if err == nil {
		err = await(ctx, "the nodes to remove the site", func(ctx context.Context) (bool, error) { return nonePending(ctx, c) })
	}
	if err != nil {
		s.app.say("the site's containers may be left: %v", err)
	}
}

// nonePending reports whether every repair that was ordered is over.
func nonePending(ctx context.Context, c *client.Client) (bool, error) {
	pending, err := c.Repairs(ctx, client.RepairFilter{State: "pending"})
	return err == nil && len(pending.Items) == 0, err
}

func (s *show) client(nodes ...*process) (*client.Client, error) {
	x := access{token: s.token, ca: s.ca}
	for _, p := range nodes {
		x.servers = append(x.servers, "https://"+p.api)
	}
	return x.client(15 * time.Second)
}

// await asks until done or the context ends; errors on the way mean "not yet".
func await(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s (last answer: %v): %w", what, last, ctx.Err())
		}
	}
}
