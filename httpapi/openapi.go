package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"

	"kontiki/api"
)

func (s *server) openapi(c *call) error {
	if _, err := s.view(c); err != nil {
		return err
	}
	c.send(http.StatusOK, s.document)
	return nil
}

// document describes the table of routes as an OpenAPI document.
func document(routes []route) []byte {
	paths := map[string]map[string]any{}
	for i := range routes {
		r := &routes[i]
		path := openPath(r.path)
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(r.method)] = r.operation()
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{"title": "Kontiki", "version": "1",
			"description": "Every node answers every request. Errors have the form of the schema Error."},
		"paths": paths,
		"components": map[string]any{
			"securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}},
			"schemas":         map[string]any{"Error": errorSchema()},
		},
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // only maps, strings and lists get here
	}
	return b
}

// openPath writes a path's parameters as OpenAPI does.
func openPath(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return strings.Join(parts, "/")
}

func (r *route) operation() map[string]any {
	params := []any{}
	add := func(name, in string, required bool) {
		params = append(params, map[string]any{"name": name, "in": in, "required": required, "schema": map[string]any{"type": "string"}})
	}
	for p := range strings.SplitSeq(r.path, "/") {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			add(name, "path", true)
		}
	}
	for _, name := range r.query {
		add(name, "query", false)
	}
	switch {
	case r.write && !r.open:
		add(api.HeaderKey, "header", false)
	case r.stream:
		add(api.HeaderLastEvent, "header", false)
	case !r.open:
		add(paramConsistent, "query", false)
		add(api.HeaderMinIndex, "header", false)
	}
	security := []any{map[string]any{"token": []string{}}}
	if r.open {
		security = []any{}
	}
	return map[string]any{"summary": r.about, "parameters": params, "security": security, "responses": map[string]any{
		"2XX": map[string]any{"description": "Done."},
		"default": map[string]any{"description": "Refused or failed.", "content": map[string]any{
			api.ContentTypeJSON: map[string]any{"schema": map[string]any{"$ref": "#/components/schemas/Error"}}}},
	}}
}

func errorSchema() map[string]any {
	text := map[string]any{"type": "string"}
	return map[string]any{"type": "object", "required": []string{"error"}, "properties": map[string]any{
		"error": map[string]any{"type": "object", "required": []string{"code", "message"}, "properties": map[string]any{
			"code": text, "message": text, "field": text, "hint": text, "request_id": text}}}}
}
