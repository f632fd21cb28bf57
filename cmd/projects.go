package cmd

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

func newProjects(a *app) *cobra.Command {
	list := func(c *cobra.Command, _ []string) error { return runProjects(c.Context(), a) }
	c := group("projects", "List, create and delete projects", list,
		&cobra.Command{Use: "list", Short: "List the projects", Args: cobra.NoArgs, RunE: list},
		newProjectCreate(a), newProjectDelete(a))
	return c
}

func runProjects(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var all []fsm.Project
	for p, err := range client.All(func(l client.List) (api.Page[fsm.Project], error) { return c.Projects(ctx, l) }) {
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	return printList(a, all, []string{"project", "active", "deployments", "domains", "changed"}, func(p fsm.Project) []string {
		made := max(p.NextNumber, 1) - 1
		return []string{p.Name, orDash(p.Active), strconv.FormatUint(made, 10), orDash(strings.Join(p.Domains, " ")), age(p.UpdatedAt)}
	})
}

type projectCreateCmd struct {
	app      *app
	domains  []string
	metadata map[string]string
}

func newProjectCreate(a *app) *cobra.Command {
	p := &projectCreateCmd{app: a}
	c := &cobra.Command{
		Use: "create <name>", Short: "Create a project", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return p.run(c.Context(), args[0]) },
	}
	c.Flags().StringSliceVar(&p.domains, "domain", nil, "a host name it answers to, beside <name>.<base domain>; repeatable")
	c.Flags().StringToStringVar(&p.metadata, "metadata", nil, "key=value of your own; repeatable")
	return c
}

func (p *projectCreateCmd) run(ctx context.Context, name string) error {
	c, err := p.app.client()
	if err != nil {
		return err
	}
	made, err := c.CreateProject(ctx, api.ProjectCreate{Name: name, Domains: p.domains, Metadata: p.metadata})
	if err != nil {
		return err
	}
	if p.app.json {
		return p.app.printJSON(made)
	}
	p.app.say("created project %s\n  next: kontiki deploy ./site --project %s", made.Name, made.Name)
	return nil
}

type projectDeleteCmd struct {
	app *app
	yes bool
}

func newProjectDelete(a *app) *cobra.Command {
	p := &projectDeleteCmd{app: a}
	c := &cobra.Command{
		Use: "delete <name>", Short: "Delete a project, its deployments and its releases", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return p.run(c.Context(), args[0]) },
	}
	c.Flags().BoolVar(&p.yes, "yes", false, "do not ask")
	return c
}

func (p *projectDeleteCmd) run(ctx context.Context, name string) error {
	c, err := p.app.client()
	if err != nil {
		return err
	}
	project, err := c.Project(ctx, name)
	if err != nil {
		return err
	}
	what := "which serves nothing"
	if project.Active != "" {
		what = "which is being served"
	}
	p.app.say("- delete project %s, %s, with all its releases", name, what)
	if err := p.app.confirm(p.yes, fmt.Sprintf("Delete project %s for good?", name)); err != nil {
		return err
	}
	if err := c.DeleteProject(ctx, name); err != nil {
		return err
	}
	if p.app.json {
		return p.app.printJSON(map[string]string{"deleted": name})
	}
	p.app.say("deleted project %s", name)
	return nil
}
