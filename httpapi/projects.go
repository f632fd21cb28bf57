package httpapi

import (
	"net/http"
	"net/url"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

func notFound(what, name string) *errs.Error {
	return errs.New(errs.NotFound, "there is no %s %q", what, clip(name))
}

func (s *server) listProjects(c *call) error {
	l, err := c.listing("projects")
	if err != nil {
		return err
	}
	state, err := s.view(c)
	if err != nil {
		return err
	}
	p := &page[*fsm.Project]{listing: l}
	for o := range state.Projects(l.after) {
		if !p.add(o, o.Name) {
			break
		}
	}
	return p.answer(c)
}

func (s *server) getProject(c *call) error {
	state, err := s.view(c)
	if err != nil {
		return err
	}
	p := state.Project(c.Param("project"))
	if p == nil {
		return notFound("project", c.Param("project"))
	}
	return object(s, c, p)
}

func (s *server) createProject(c *call) error {
	var in api.ProjectCreate
	if err := c.decodeJSON(&in); err != nil {
		return err
	}
	if err := checkName("name", "project", in.Name); err != nil {
		return err
	}
	if err := fsm.CheckMetadata(in.Metadata); err != nil {
		return err
	}
	if _, err := s.propose(c, fsm.ProjectCreate{Name: in.Name, Domains: in.Domains, Metadata: in.Metadata}, c.changes); err != nil {
		return err
	}
	c.Writer.Header().Set("Location", "/api/projects/"+url.PathEscape(in.Name))
	return s.projectNow(c, http.StatusCreated, in.Name)
}

// checkName names the field of the request, not the kind of object, as the one that is wrong.
func checkName(field, what, name string) error {
	if err := fsm.CheckName(what, name); err != nil {
		return errs.From(err).WithField(field)
	}
	return nil
}

// projectNow answers a write with the project as it is now.
func (s *server) projectNow(c *call, status int, name string) error {
	p := s.Replica.State().Project(name)
	if p == nil {
		return goneSince("project", name)
	}
	return c.reply(status, p)
}

// goneSince is the answer to a write whose object was removed before it could be shown.
func goneSince(what, name string) error {
	return errs.New(errs.NotFound, "the %s %q was changed as asked and has been removed since", what, clip(name))
}

func (s *server) updateProject(c *call) error {
	var in api.ProjectUpdate
	if err := c.decodeJSON(&in); err != nil {
		return err
	}
	name := c.Param("project")
	if _, err := s.propose(c, fsm.ProjectUpdate{Name: name, Domains: in.Domains, Metadata: in.Metadata}, c.changes); err != nil {
		return err
	}
	return s.projectNow(c, http.StatusOK, name)
}

func (s *server) deleteProject(c *call) error {
	if _, err := s.propose(c, fsm.ProjectDelete{Name: c.Param("project")}, nil); err != nil {
		return err
	}
	return c.empty()
}
