package httpapi

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

var statuses = []fsm.Status{fsm.StatusQueued, fsm.StatusRunning, fsm.StatusActive, fsm.StatusSuperseded, fsm.StatusFailed, fsm.StatusCancelled}

// filter chooses deployments; empty fields choose all.
type filter struct {
	project string
	status  fsm.Status
	phase   fsm.Phase
}

func (f filter) matches(d *fsm.Deployment) bool {
	return (f.project == "" || d.Project == f.project) && (f.status == "" || d.Status == f.status) && (f.phase == "" || d.Phase == f.phase)
}

func (c *call) filter() (filter, error) {
	f := filter{project: c.query["project"]}
	if name := c.Param("project"); name != "" {
		f.project = name
	}
	var err error
	if f.status, err = oneOf(c.query, "status", statuses); err != nil {
		return f, err
	}
	f.phase, err = oneOf(c.query, "phase", fsm.Phases)
	return f, err
}

// maxVisited bounds the deployments looked at for one part of a list: a filter that matches few gives short parts.
const maxVisited = 10_000

// listDeployments lists without steps and timeline, which one deployment's own answer has.
func (s *server) listDeployments(c *call) error {
	f, err := c.filter()
	if err != nil {
		return err
	}
	l, err := c.listing("deployments")
	if err != nil {
		return err
	}
	if l.after != "" && !fsm.ValidID(l.after) {
		return errs.New(errs.Invalid, "the cursor is not one of this list").WithField("cursor").WithHint("send next_cursor of the part before, or none")
	}
	state, err := s.view(c)
	if err != nil {
		return err
	}
	if f.project != "" && state.Project(f.project) == nil {
		return notFound("project", f.project)
	}
	p := &page[fsm.Deployment]{listing: l}
	visited := 0
	for d := range deploymentsFor(state, f, l.after) {
		if visited++; visited > maxVisited {
			p.last, p.more = d.ID, true
			break
		}
		if f.matches(d) && !p.add(brief(d), d.ID) {
			break
		}
	}
	return p.answer(c)
}

// brief leaves out what makes a deployment long.
func brief(d *fsm.Deployment) fsm.Deployment {
	b := *d
	b.Steps, b.Events = nil, nil
	return b
}

// deploymentsFor visits the deployments among which the filter's are, newest first, below the one given. The few that
// are queued, running or active are found by their index.
func deploymentsFor(s *fsm.State, f filter, before string) func(yield func(*fsm.Deployment) bool) {
	switch f.status {
	case fsm.StatusQueued, fsm.StatusRunning, fsm.StatusActive:
		var all []*fsm.Deployment
		for d := range s.DeploymentsIn(f.status) {
			if (before == "" || d.ID < before) && f.matches(d) {
				all = append(all, d)
			}
		}
		slices.SortFunc(all, func(a, b *fsm.Deployment) int { return cmp.Compare(b.ID, a.ID) })
		return func(yield func(*fsm.Deployment) bool) {
			for _, d := range all {
				if !yield(d) {
					return
				}
			}
		}
	}
	if f.project == "" {
		return s.Deployments(before)
	}
	var number uint64
	if d := s.Deployment(before); d != nil && d.Project == f.project {
		number = d.Number
	}
	return func(yield func(*fsm.Deployment) bool) {
		for d := range s.DeploymentsOf(f.project, number) {
			if (before == "" || number != 0 || d.ID < before) && !yield(d) {
				return
			}
		}
	}
}

func (s *server) getDeployment(c *call) error {
	state, err := s.view(c)
	if err != nil {
		return err
	}
	d := state.Deployment(c.Param("id"))
	if d == nil {
		return notFound("deployment", c.Param("id"))
	}
	return object(s, c, d)
}

// deploymentNow answers a write with the deployment as it is now.
func (s *server) deploymentNow(c *call, status int, id string) error {
	d := s.Replica.State().Deployment(id)
	if d == nil {
		return goneSince("deployment", id)
	}
	return c.reply(status, d)
}

func (s *server) cancel(c *call) error {
	id := c.Param("id")
	if _, err := s.propose(c, fsm.DeploymentCancel{ID: id}, nil); err != nil {
		return err
	}
	return s.deploymentNow(c, http.StatusOK, id)
}

func (s *server) logs(c *call) error {
	state, err := s.view(c)
	if err != nil {
		return err
	}
	id := c.Param("id")
	if state.Deployment(id) == nil {
		return notFound("deployment", id)
	}
	lines, err := s.Logs.Logs(c.Request.Context(), id)
	if err != nil {
		return err
	}
	if lines == nil {
		lines = []api.LogLine{}
	}
	return c.reply(http.StatusOK, api.Logs{Deployment: id, Lines: lines})
}

func (s *server) plan(c *call) error {
	create, err := c.query.flag("create")
	if err != nil {
		return err
	}
	replicas, err := c.replicas()
	if err != nil {
		return err
	}
	name := c.Param("project")
	if err := checkName("project", "project", name); err != nil {
		return err
	}
	state, err := s.view(c)
	if err != nil {
		return err
	}
	project := state.Project(name)
	if project == nil && !create {
		return noProject(name)
	}
	plan := api.Plan{Project: name, CreateProject: project == nil, Number: 1, Replicas: replicas,
		Nodes: s.Place(state, name, replicas), Host: name + "." + state.Settings().BaseDomain}
	if project != nil {
		plan.Number = project.NextNumber
		planAround(&plan, state, project)
	}
	return c.reply(http.StatusOK, plan)
}

// planAround says what the new deployment would do to those that are there.
func planAround(plan *api.Plan, state *fsm.State, project *fsm.Project) {
	if d := state.ActiveOf(project); d != nil {
		active := planned(d)
		plan.Replaces = &active
	}
	for d := range state.DeploymentsIn(fsm.StatusRunning) {
		if d.Project == project.Name {
			plan.Waits = append(plan.Waits, planned(d))
		}
	}
	latest := state.Settings().Queue == "latest"
	for d := range state.DeploymentsIn(fsm.StatusQueued) {
		switch {
		case d.Project != project.Name:
		case latest:
			plan.Cancels = append(plan.Cancels, planned(d))
		default:
			plan.Waits = append(plan.Waits, planned(d))
		}
	}
}

func planned(d *fsm.Deployment) api.PlanDeployment {
	return api.PlanDeployment{ID: d.ID, Number: d.Number, Label: d.Source.Label, Status: d.Status, Nodes: d.Targets}
}

func noProject(name string) error {
	return notFound("project", name).WithHint("create it first, or ask with create=true")
}

// replicas reads the parameter of that name.
func (c *call) replicas() (fsm.Replicas, error) {
	s, ok := c.query["replicas"]
	if !ok {
		return fsm.DefaultSpec().Replicas, nil
	}
	return fsm.ParseReplicas(s)
}

// since reads where a stream is to resume: the header that browsers send, or the parameter. ok is false without both.
func (c *call) since() (index uint64, ok bool, err error) {
	name, text := "Last-Event-ID", c.Request.Header.Get("Last-Event-ID")
	if text == "" {
		name, text = "since", c.query["since"]
	}
	if text == "" {
		return 0, false, nil
	}
	index, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false, errs.New(errs.Invalid, "%s is %q", name, clip(text)).WithField(name).
			WithHint("give the id of the last event that was received")
	}
	return index, true, nil
}
