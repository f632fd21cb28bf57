package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"kontiki/api"
	"kontiki/fsm"
)

// List asks for one part of a list.
type List struct {
	Limit  int    // 1 to 200; 0 leaves it to the server
	Cursor string // NextCursor of the part before
}

func (l List) values() url.Values {
	v := url.Values{}
	if l.Limit != 0 {
		v.Set("limit", strconv.Itoa(l.Limit))
	}
	setIf(v, "cursor", l.Cursor)
	return v
}

func setIf(v url.Values, name, value string) {
	if value != "" {
		v.Set(name, value)
	}
}

// All visits every item of a list, part by part; after an error it ends. list asks for one part:
//
//	for p, err := range client.All(func(l client.List) (api.Page[fsm.Project], error) { return c.Projects(ctx, l) }) {
func All[T any](list func(List) (api.Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		l := List{Limit: 200}
		for {
			page, err := list(l)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if l.Cursor = page.NextCursor; l.Cursor == "" {
				return
			}
		}
	}
}

// Projects lists projects by name.
func (c *Client) Projects(ctx context.Context, l List) (api.Page[fsm.Project], error) {
	return get[api.Page[fsm.Project]](ctx, c, "/api/projects", l.values())
}

// Project gets a project.
func (c *Client) Project(ctx context.Context, name string) (fsm.Project, error) {
	return get[fsm.Project](ctx, c, projectPath(name), nil)
}

// CreateProject makes a project.
func (c *Client) CreateProject(ctx context.Context, p api.ProjectCreate) (fsm.Project, error) {
	return send[fsm.Project](ctx, c, http.MethodPost, "/api/projects", p)
}

// UpdateProject changes a project's domains or metadata.
func (c *Client) UpdateProject(ctx context.Context, name string, p api.ProjectUpdate) (fsm.Project, error) {
	return send[fsm.Project](ctx, c, http.MethodPatch, projectPath(name), p)
}

// DeleteProject removes a project with all its deployments and releases.
func (c *Client) DeleteProject(ctx context.Context, name string) error {
	return c.remove(ctx, projectPath(name))
}

func projectPath(name string) string { return "/api/projects/" + url.PathEscape(name) }
