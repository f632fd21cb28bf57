package ingress

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strings"

	"kontiki/errs"
)

const page = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>%[1]d %[2]s</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;color:#222;background:#fff}
small{color:#666}@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}small{color:#999}}</style>
<h1>%[2]s</h1><p>%[3]s</p><p>%[4]s</p><p><small>%[1]d · request %[5]s</small></p></html>
`

// problem is the body of an error answer.
type problem struct {
	Error struct {
		*errs.Error
		RequestID string `json:"request_id"`
	} `json:"error"`
}

// nowhere is the answer for a host that leads to no release.
func nowhere(host string, route Route) *errs.Error {
	if route.Project != "" {
		return errs.New(errs.NotFound, "project %q has no release for host %q", route.Project, clip(host)).WithField("host").
			WithHint("it may not be active yet; see: kontiki status %s", route.Project)
	}
	return errs.New(errs.NotFound, "no project is served at host %q", clip(host)).WithField("host").
		WithHint("check the spelling, or add the domain to its project")
}

// clip shortens what a user sent for an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// refuse answers with an error, as a page to who accepts HTML and as JSON to others, and gives the ID that names the
// request in it.
func refuse(w http.ResponseWriter, r *http.Request, e *errs.Error) string {
	id := rand.Text()[:16]
	status := errs.Status(e.Code)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprintf(w, page, status, http.StatusText(status), html.EscapeString(e.Message), html.EscapeString(e.Hint), id)
		return id
	}
	var body problem
	body.Error.Error, body.Error.RequestID = e, id
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a user who is gone needs no answer
	return id
}
