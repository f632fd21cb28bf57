package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

type statusCmd struct{ app *app }

func newStatus(a *app) *cobra.Command {
	s := &statusCmd{app: a}
	return &cobra.Command{
		Use: "status [project | deployment]", Short: "Show how the cluster, a project or a deployment is", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			switch {
			case len(args) == 0:
				return s.cluster(c.Context(), cl)
			case fsm.ValidID(args[0]):
				return s.deployment(c.Context(), cl, args[0])
			}
			return s.project(c.Context(), cl, args[0])
		},
	}
}

func (s *statusCmd) cluster(ctx context.Context, c *client.Client) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if s.app.json {
		return s.app.printJSON(status)
	}
	rows := [][]string{{"cluster", status.ID}, {"leader", orDash(status.Leader)}, {"term", fmt.Sprint(status.Term)},
		{"index", fmt.Sprintf("%d (as node %s has it)", status.Applied, status.Node)}}
	if err := s.app.table(nil, rows); err != nil {
		return err
	}
	fmt.Fprintln(s.app.Out)
	return s.app.table(peersHead, peerRows(status.Peers))
}

// projectStatus is a project with what serves and what is under way.
type projectStatus struct {
	Project fsm.Project     `json:"project"`
	Active  *fsm.Deployment `json:"active,omitempty"`
	Newest  *fsm.Deployment `json:"newest,omitempty"`
}

func (s *statusCmd) project(ctx context.Context, c *client.Client, name string) error {
	p, err := c.Project(ctx, name)
	if err != nil {
		return err
	}
	out := projectStatus{Project: p}
	if p.Active != "" {
		d, err := c.Deployment(ctx, p.Active)
		if err != nil {
			return err
		}
		out.Active = &d
	}
	newest, err := c.Deployments(ctx, client.Filter{Project: name, List: client.List{Limit: 1}})
	if err != nil {
		return err
	}
	if len(newest.Items) > 0 {
		out.Newest = &newest.Items[0]
	}
	if s.app.json {
		return s.app.printJSON(out)
	}
	return s.app.table(nil, out.rows())
}

func (p projectStatus) rows() [][]string {
	rows := [][]string{{"project", p.Project.Name}}
	if p.Active == nil {
		rows = append(rows, []string{"serving", "nothing yet"})
	} else {
		rows = append(rows, []string{"serving", fmt.Sprintf("number %d (%s) on %s nodes", p.Active.Number, p.Active.ID, serving(*p.Active))})
	}
	if p.Newest != nil && p.Newest.ID != p.Project.Active {
		rows = append(rows, []string{"newest", fmt.Sprintf("number %d (%s) %s", p.Newest.Number, p.Newest.ID, standing(*p.Newest))})
	}
	return rows
}

// standing says in a few words where a deployment is.
func standing(d fsm.Deployment) string {
	switch {
	case d.Failure != nil:
		return fmt.Sprintf("%s in %s: %s", d.Status, d.Failure.Phase, d.Failure.Message)
	case d.Status == fsm.StatusRunning:
		return fmt.Sprintf("runs: %s at %d %%, attempt %d", d.Phase, d.PhaseProgress, d.Attempt)
	}
	return "is " + string(d.Status)
}

func (s *statusCmd) deployment(ctx context.Context, c *client.Client, id string) error {
	d, err := c.Deployment(ctx, id)
	if err != nil {
		return err
	}
	if s.app.json {
		return s.app.printJSON(d)
	}
	rows := [][]string{{"deployment", d.ID}, {"project", fmt.Sprintf("%s, number %d", d.Project, d.Number)},
		{"status", fmt.Sprintf("%s, %s at %d %%, attempt %d", d.Status, d.Phase, d.PhaseProgress, d.Attempt)},
		{"source", fmt.Sprintf("%s, %s, %s", d.Source.Type, d.Source.Format, size(d.Source.Size))}, {"nodes", serving(d)}}
	if err := s.app.table(nil, rows); err != nil {
		return err
	}
	fmt.Fprintln(s.app.Out)
	if err := s.app.table(stepsHead, stepRows(d.Steps)); err != nil {
		return err
	}
	if d.Failure != nil {
		fmt.Fprintln(s.app.Out)
		writeFailure(s.app.Out, d.ID, d.Failure)
	}
	return nil
}

var stepsHead = []string{"phase", "node", "attempt", "state", "term", "took", "message"}

func stepRows(steps []fsm.Step) [][]string {
	rows := make([][]string, len(steps))
	for i, s := range steps {
		took, message := "-", s.Message
		if s.FinishedAt != 0 {
			took = (time.Duration(s.FinishedAt-s.StartedAt) * time.Millisecond).String()
		}
		if s.Failure != nil {
			message = s.Failure.Message
		}
		rows[i] = []string{string(s.Phase), orDash(s.Node), fmt.Sprint(s.Attempt), string(s.State), fmt.Sprint(s.Term), took, message}
	}
	return rows
}

var peersHead = []string{"node", "role", "state", "reachable", "index", "lag", "engine", "version", "api", "ingress"}

func peerRows(peers []api.Peer) [][]string {
	rows := make([][]string, len(peers))
	for i, p := range peers {
		reachable := "yes"
		if !p.Reachable {
			reachable = "no"
		}
		rows[i] = []string{p.ID, p.Role, string(p.State), reachable, fmt.Sprint(p.MatchIndex), fmt.Sprint(p.Lag), orDash(p.Engine), orDash(p.Version), p.APIAddr, p.IngressAddr}
	}
	return rows
}
