package fsm

import (
	"slices"
	"strings"

	"kontiki/errs"
)

// ProjectCreate adds a project.
type ProjectCreate struct {
	Name     string            `cbor:"name"`
	Domains  []string          `cbor:"domains,omitempty"`
	Metadata map[string]string `cbor:"metadata,omitempty"`
}

// Kind implements Body.
func (ProjectCreate) Kind() Kind { return "project.create" }

// ProjectUpdate changes what the user may set of a project: nil leaves a part as it is. Metadata is merged, an empty
// value removes its key.
type ProjectUpdate struct {
	Name     string            `cbor:"name"`
	Domains  *[]string         `cbor:"domains,omitempty"`
	Metadata map[string]string `cbor:"metadata,omitempty"`
}

// Kind implements Body.
func (ProjectUpdate) Kind() Kind { return "project.update" }

// ProjectDelete removes a project with all its deployments; nodes are ordered to remove what they have of it.
type ProjectDelete struct {
	Name string `cbor:"name"`
}

// Kind implements Body.
func (ProjectDelete) Kind() Kind { return "project.delete" }

func init() {
	register(true, applyProjectCreate, func(b ProjectCreate) string { return b.Name })
	register(true, applyProjectUpdate, func(b ProjectUpdate) string { return b.Name })
	register(true, applyProjectDelete, func(b ProjectDelete) string { return b.Name })
}

func applyProjectCreate(t *tx, _ Command, b ProjectCreate) (any, error) {
	return nil, t.createProject(b)
}

func (t *tx) createProject(b ProjectCreate) error {
	if err := CheckName("project", b.Name); err != nil {
		return err
	}
	if t.state().Project(b.Name) != nil {
		return errs.New(errs.Exists, "a project %q exists", b.Name).WithField("name").WithHint("choose another name")
	}
	if err := CheckMetadata(b.Metadata); err != nil {
		return err
	}
	domains, err := t.domains(b.Name, b.Domains)
	if err != nil {
		return err
	}
	p := &Project{Name: b.Name, Domains: domains, Metadata: b.Metadata, NextNumber: 1, CreatedAt: t.now, UpdatedAt: t.now}
	put(t, tableProjects, p, &p.Indexes)
	return nil
}

// domains gives the sorted set of a project's own domains, none of which may be another's or lie below the base
// domain, where projects are reached by name.
func (t *tx) domains(project string, in []string) ([]string, error) {
	s := t.state()
	out := slices.Clone(in)
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > 100 {
		return nil, errs.New(errs.Invalid, "%d domains are too many for one project", len(out)).WithField("domains").WithHint("keep it to 100")
	}
	base := s.Settings().BaseDomain
	for _, d := range out {
		if err := CheckDomain(d); err != nil {
			return nil, err
		}
		if d == base || strings.HasSuffix(d, "."+base) {
			return nil, errs.New(errs.Invalid, "%s lies below the base domain %s", d, base).WithField("domains").
				WithHint("projects are reached there by their names already")
		}
		if other := s.ProjectByDomain(d); other != nil && other.Name != project {
			return nil, errs.New(errs.Exists, "%s is a domain of project %q", d, other.Name).WithField("domains").WithHint("take it from that project first")
		}
	}
	return out, nil
}

func applyProjectUpdate(t *tx, _ Command, b ProjectUpdate) (any, error) {
	p := t.state().Project(b.Name)
	if p == nil {
		return nil, notFound("project", b.Name)
	}
	c := *p
	if b.Domains != nil {
		domains, err := t.domains(b.Name, *b.Domains)
		if err != nil {
			return nil, err
		}
		c.Domains = domains
	}
	c.Metadata = merge(p.Metadata, b.Metadata)
	if err := CheckMetadata(c.Metadata); err != nil {
		return nil, err
	}
	c.UpdatedAt = t.now
	put(t, tableProjects, &c, &c.Indexes)
	return nil, nil
}

// merge gives base with the changes made; an empty value removes its key. Neither argument is changed.
func merge(base, changes map[string]string) map[string]string {
	if len(changes) == 0 {
		return base
	}
	out := make(map[string]string, len(base)+len(changes))
	for k, v := range base {
		out[k] = v
	}
	for k, v := range changes {
		if out[k] = v; v == "" {
			delete(out, k)
		}
	}
	return out
}

func applyProjectDelete(t *tx, _ Command, b ProjectDelete) (any, error) {
	s := t.state()
	p := s.Project(b.Name)
	if p == nil {
		return nil, notFound("project", b.Name)
	}
	var gone []*Deployment
	for d := range s.DeploymentsOf(b.Name, 0) {
		if d.Status == StatusRunning {
			return nil, errs.New(errs.Conflict, "deployment %s of project %q is running", d.ID, b.Name).
				WithHint("wait for it or cancel it: kontiki cancel %s", d.ID)
		}
		gone = append(gone, d)
	}
	for _, d := range gone {
		drop(t, tableDeployments, d.ID, d)
	}
	drop(t, tableProjects, p.Name, p)
	for _, r := range collect(s.Repairs()) {
		if r.Project == b.Name && r.State == StepPending {
			c := *r
			c.State, c.FinishedAt, c.Message = StepAbandoned, t.now, "the project was deleted"
			put(t, tableRepairs, &c, &c.Indexes)
		}
	}
	for _, n := range collect(s.Nodes()) {
		t.order(&Repair{Kind: RepairForget, Node: n.ID, Project: b.Name, Reason: "the project was deleted"})
	}
	return nil, nil
}
