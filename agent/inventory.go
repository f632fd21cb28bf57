package agent

import (
	"context"
	"fmt"

	"kontiki/errs"
	"kontiki/fsm"
)

// Holding is what this node has of a project whose active deployment it is to serve.
type Holding struct {
	Project    string `json:"project"`
	Deployment string `json:"deployment"` // the one that was active when this node looked
	Release    bool   `json:"release"`    // its directory is there
	Current    bool   `json:"current"`    // the project's current link names it
	Webroot    bool   `json:"webroot"`    // the project's webroot link is right
	Server     bool   `json:"server"`     // the project's server runs and is not ill
}

// Inspector looks at what this node has on its disk and changes nothing.
type Inspector interface {
	// Inspect fills in a Holding but for Server. An error says nothing about what is there.
	Inspect(ctx context.Context, project, deployment string) (Holding, error)
}

// Inventory looks at everything active that this node is to serve. A project the agent itself has not come to the end
// with, in the first moments after its start and after a switch, is left out, and so is one that cannot be looked at:
// what is not in the answer is not known. The error is the engine's, or Unavailable before the agent runs.
func (a *Agent) Inventory(ctx context.Context) ([]Holding, error) {
	if !a.settled.running() {
		return nil, errs.New(errs.Unavailable, "node %q is catching up", a.cfg.Node)
	}
	works, err := a.cfg.Engine.Working(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the servers: %w", err)
	}
	holdings := []Holding{}
	for d := range a.cfg.Replica.State().DeploymentsIn(fsm.StatusActive) {
		if !d.Serves(a.cfg.Node) || !a.settled.on(d) {
			continue
		}
		h, err := a.cfg.Inspector.Inspect(ctx, d.Project, d.ID)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("look at the releases: %w", ctx.Err())
		}
		if err != nil {
			a.cfg.Logger.Warn("a project cannot be looked at", "project", d.Project, "deployment", d.ID, "error", err)
			continue
		}
		h.Server = works(d.Project)
		holdings = append(holdings, h)
	}
	return holdings, nil
}

// resumeAll makes sure, once, of what this node is to serve: a machine that was rebooted has its files and no container
// running. What cannot be mended is left to the leader, which finds it in the inventory.
func (a *Agent) resumeAll(ctx context.Context, s *fsm.State) {
	var projects []string
	for d := range s.DeploymentsIn(fsm.StatusActive) {
		if d.Serves(a.cfg.Node) {
			projects = append(projects, d.Project)
		}
	}
	a.settled.begin(projects)
	for _, project := range projects {
		a.start(ctx, jobKey{kind: jobResume, id: project}, func(ctx context.Context) {
			defer a.settled.resumed(project)
			a.limited(ctx, a.upkeep, func() { a.resume(ctx, project) })
		})
	}
}

func (a *Agent) resume(ctx context.Context, project string) {
	unlock, err := a.together(ctx, project)
	if err != nil {
		return // the node stops
	}
	defer unlock()
	s := a.cfg.Replica.State()
	d := s.ActiveOf(s.Project(project))
	if d == nil || !d.Serves(a.cfg.Node) {
		return
	}
	if _, err := a.ensureServed(ctx, d); err != nil && ctx.Err() == nil {
		a.cfg.Logger.Warn("what was served before the start is not whole", "project", project, "deployment", d.ID, "error", err)
	}
}
