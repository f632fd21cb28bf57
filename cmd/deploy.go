package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
	"kontiki/source"
)

type deployCmd struct {
	app      *app
	project  string
	replicas string
	label    string
	health   string
	yes      bool
	detach   bool
}

func newDeploy(a *app) *cobra.Command {
	d := &deployCmd{app: a}
	c := &cobra.Command{
		Use: "deploy <folder | archive> --project <name>", Short: "Bring a site into service", Args: cobra.ExactArgs(1),
		Long: `Packs a folder (leaving out .git and what .kontikiignore names) or takes a ready archive (tar, tar.gz, tar.zst
or zip), shows what will happen, uploads it to any node and follows it phase by phase until it serves. The
version that served before goes on serving until then.

On a terminal it asks before it begins. When following is interrupted the deployment goes on.`,
		Example: "  kontiki deploy ./site --project hello\n  kontiki deploy site.tar.zst --project hello --replicas 2 --label v1.4 --yes",
		RunE:    func(c *cobra.Command, args []string) error { return d.run(c.Context(), args[0]) },
	}
	f := c.Flags()
	f.StringVarP(&d.project, "project", "p", "", "the project; it is made when it is not there")
	f.StringVar(&d.replicas, "replicas", "", "on how many nodes it runs: a number, or all (the default)")
	f.StringVar(&d.label, "label", "", "what you call this version")
	f.StringVar(&d.health, "health-path", "", "path that must answer below 400 before it serves (default /)")
	f.BoolVar(&d.yes, "yes", false, "do not ask")
	f.BoolVar(&d.detach, "detach", false, "end when the deployment is queued")
	return c
}

func (d *deployCmd) how() (client.How, error) {
	how := client.How{Create: true, Label: d.label, Health: fsm.Health{Path: d.health}}
	if d.replicas == "" {
		return how, nil
	}
	n, err := fsm.ParseReplicas(d.replicas)
	if err != nil {
		return how, configError(err)
	}
	how.Replicas = n
	return how, nil
}

func (d *deployCmd) run(ctx context.Context, path string) error {
	if d.project == "" {
		return usage(fmt.Sprintf("kontiki deploy %s --project <name>", path), "no project is named")
	}
	how, err := d.how()
	if err != nil {
		return err
	}
	content, err := describe(path)
	if err != nil {
		return err
	}
	c, err := d.app.client()
	if err != nil {
		return err
	}
	plan, err := c.Plan(ctx, d.project, how)
	if err != nil {
		return err
	}
	if err := d.showPlan(plan, content); err != nil {
		return err
	}
	if d.app.Terminal && !d.app.json {
		if err := d.app.confirm(d.yes, fmt.Sprintf("Deploy to project %s?", d.project)); err != nil {
			return err
		}
	}
	made, err := d.upload(ctx, c, content, how)
	if err != nil {
		return err
	}
	if d.detach {
		return d.queued(made)
	}
	return d.follow(ctx, c, made)
}

func (d *deployCmd) showPlan(plan api.Plan, content content) error {
	if d.app.json {
		return d.app.printJSON(map[string]any{"plan": plan, "files": content.files, "bytes": content.bytes})
	}
	_, err := io.WriteString(d.app.Out, renderPlan(plan, content))
	return err
}

func (d *deployCmd) queued(made fsm.Deployment) error {
	if d.app.json {
		return d.app.printJSON(map[string]any{"deployment": made})
	}
	d.app.say("queued as number %d\n  next: kontiki status %s", made.Number, made.ID)
	_, err := fmt.Fprintln(d.app.Out, made.ID)
	return err
}

// content is what the user wants to deploy.
type content struct {
	path    string
	archive bool  // a file that is packed already
	files   int   // 0 for an archive, whose files the cluster counts
	bytes   int64 // before packing; an archive's own size
}

// describe looks at what is to be deployed, before anything is done.
func describe(path string) (content, error) {
	info, err := os.Stat(path)
	if err != nil {
		return content{}, usage("give a folder or an archive", "look at what to deploy: %w", err)
	}
	if !info.IsDir() {
		return content{path: path, archive: true, bytes: info.Size()}, nil
	}
	files, err := source.List(path)
	if err != nil {
		return content{}, configError(err)
	}
	if len(files) == 0 {
		return content{}, usage("give the folder that holds index.html", "there is nothing to deploy in %s", path)
	}
	c := content{path: path, files: len(files)}
	for _, f := range files {
		c.bytes += f.Size
	}
	return c, nil
}

// open gives the archive to upload; done frees it.
func (c content) open(ctx context.Context) (archive *os.File, done func(), err error) {
	if c.archive {
		f, err := os.Open(c.path)
		if err != nil {
			return nil, nil, fmt.Errorf("open archive: %w", err)
		}
		return f, func() { _ = f.Close() }, nil // only read
	}
	f, err := os.CreateTemp("", "kontiki-upload-*.tar.gz")
	if err != nil {
		return nil, nil, fmt.Errorf("make temporary archive: %w", err)
	}
	done = func() { _, _ = f.Close(), os.Remove(f.Name()) } // nothing depends on it any more
	if _, err := source.Pack(ctx, c.path, f); err != nil {
		done()
		return nil, nil, err
	}
	return f, done, nil
}

func (d *deployCmd) upload(ctx context.Context, c *client.Client, content content, how client.How) (fsm.Deployment, error) {
	archive, done, err := content.open(ctx)
	if err != nil {
		return fsm.Deployment{}, err
	}
	defer done()
	bar := d.app.newBar()
	defer bar.clear()
	total, err := archive.Seek(0, io.SeekEnd)
	if err != nil {
		return fsm.Deployment{}, fmt.Errorf("measure archive: %w", err)
	}
	sent := func(n int64) {
		bar.draw(int(100*n/max(total, 1)), fmt.Sprintf("uploading, %s of %s", size(n), size(total)))
	}
	return c.Deploy(ctx, client.DeployRequest{Project: d.project, Archive: archive, How: how, OnSent: sent})
}

// follow shows the deployment's way to its end.
func (d *deployCmd) follow(ctx context.Context, c *client.Client, made fsm.Deployment) error {
	started := time.Now()
	w := &watcher{app: d.app, bar: d.app.newBar()}
	err := c.Follow(ctx, made.ID, 0, w.event)
	w.bar.clear()
	if err != nil && ctx.Err() != nil {
		d.app.say("no longer following; the deployment goes on\n  next: kontiki status %s", made.ID)
		return &exitError{code: ExitInterrupted, err: errors.New("interrupted")}
	}
	if err != nil {
		return err
	}
	end, err := c.Deployment(ctx, made.ID)
	if err != nil {
		return err
	}
	if end.Status == fsm.StatusFailed || end.Status == fsm.StatusCancelled {
		return d.failed(end)
	}
	return d.succeeded(ctx, c, end, time.Since(started))
}

func (d *deployCmd) failed(end fsm.Deployment) error {
	if d.app.json {
		if err := d.app.printJSON(map[string]any{"deployment": end}); err != nil {
			return err
		}
	} else if end.Failure != nil {
		writeFailure(d.app.Err, end.ID, end.Failure)
	}
	return &exitError{code: ExitDeployment, err: deploymentError(end)}
}

// succeeded ends with where the site is.
func (d *deployCmd) succeeded(ctx context.Context, c *client.Client, end fsm.Deployment, took time.Duration) error {
	plan, err := c.Plan(ctx, end.Project, client.How{})
	if err != nil {
		return err
	}
	peers, err := c.Peers(ctx)
	if err != nil {
		return err
	}
	url := siteURL(plan.Host, peers.Items)
	if d.app.json {
		return d.app.printJSON(map[string]any{"deployment": end, "url": url})
	}
	d.app.say("active: number %d serves on %s nodes, after %.1f s", end.Number, serving(end), took.Seconds())
	_, err = fmt.Fprintln(d.app.Out, url)
	return err
}
