package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/httpapi"
)

// failing is a node on which nothing works.
type failing struct{ err error }

func (f failing) StoreUpload(_ context.Context, body io.Reader, _ int64) (httpapi.Stored, error) {
	_, _ = io.Copy(io.Discard, body)
	return httpapi.Stored{}, f.err
}
func (f failing) CheckHead([]byte, string) error                               { return nil }
func (f failing) DetectFormat(context.Context, string, string) (string, error) { return "", f.err }
func (f failing) Admit(context.Context, api.JoinRequest) (api.JoinAnswer, error) {
	return api.JoinAnswer{}, f.err
}
func (f failing) CheckRemoval(string) error { return f.err }
func (f failing) Status(context.Context) (api.ClusterStatus, error) {
	return api.ClusterStatus{}, f.err
}
func (f failing) Hashes(context.Context) (api.Hashes, error)                   { return api.Hashes{}, f.err }
func (f failing) Logs(context.Context, string) ([]api.LogLine, error)          { return nil, f.err }
func (f failing) Propose(context.Context, fsm.Command) (r fsm.Result, e error) { return r, f.err }

// What a part of the node says is answered as it says it; what it did not foresee is an internal error.
func TestFailuresOfTheNode(t *testing.T) {
	for _, row := range []struct {
		err    error
		code   errs.Code
		status int
	}{
		{errs.New(errs.DiskFull, "no room for %d bytes", 5), errs.DiskFull, http.StatusInsufficientStorage},
		{errors.New("something else"), errs.Internal, http.StatusInternalServerError},
		{context.DeadlineExceeded, errs.Timeout, http.StatusGatewayTimeout},
		{context.Canceled, errs.Unavailable, http.StatusServiceUnavailable},
	} {
		f := failing{row.err}
		g := newGroup(t, 1, func(d *httpapi.Deps) { d.Uploads, d.Members, d.Logs = f, f, f })
		g.must(t, fsm.ProjectCreate{Name: "hello"})
		g.must(t, fsm.DeploymentCreate{ID: fsm.NewID(), Project: "hello", Spec: fsm.DefaultSpec(), Source: fsm.Source{Type: fsm.SourceUpload, Digest: "sha256:" + strings.Repeat("a", 64), Size: 1, Format: "tar"}})
		var id string
		for d := range g.replicas[0].State().Deployments("") {
			id = d.ID
		}
		for _, ask := range []struct{ method, path, kind string }{
			{"GET", "/api/cluster", ""}, {"GET", "/api/cluster/peers", ""}, {"GET", "/api/cluster/hashes", ""}, {"DELETE", "/api/cluster/peers/n2", ""},
			{"GET", "/api/deployments/" + id + "/logs", ""}, {"POST", "/api/projects/hello/deployments", "application/gzip"},
		} {
			body := ""
			if ask.kind != "" {
				body = "x"
			}
			res := g.ask(t, ask.method, ask.path, body, "Content-Type", ask.kind)
			if e := refusal(t, res); e.Code != row.code || res.StatusCode != row.status {
				t.Errorf("%s %s: %d %s, want %s", ask.method, ask.path, res.StatusCode, e.Code, row.code)
			}
		}
	}
}

// What was made and is gone by the time its maker asks again is said to be gone.
func TestReplayOfWhatIsGone(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	once := func() (fsm.Deployment, error) {
		return c.Deploy(client.WithKey(t.Context(), "once"), client.DeployRequest{Project: "hello", Archive: bytes.NewReader(archive("x")), How: client.How{Create: true}})
	}
	if _, err := once(); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteProject(t.Context(), "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := once(); errs.CodeOf(err) != errs.NotFound || !strings.Contains(err.Error(), "removed since") {
		t.Errorf("%v", err)
	}
	if g.replicas[0].State().Project("hello") != nil {
		t.Error("a repetition made it again")
	}
}

func TestWrongTypesAreNamed(t *testing.T) {
	g := newGroup(t, 1, nil)
	for body, says := range map[string]string{
		`{"builds":"x"}`:    "builds wants a whole number, not a JSON string",
		`{"builds":1.5}`:    "builds wants a whole number",
		`{"deadlines":[]}`:  "deadlines wants an object",
		`{"node_lost":"x"}`: "node_lost",
	} {
		if e := refusal(t, g.ask(t, "PATCH", "/api/cluster/settings", body)); e.Code != errs.InvalidJSON || !strings.Contains(e.Message, says) {
			t.Errorf("%s: %s %q", body, e.Code, e.Message)
		}
	}
	for body, says := range map[string]string{`{"domains":"x"}`: "domains wants an array", `{"metadata":{"a":1}}`: "metadata wants a string"} {
		if e := refusal(t, g.ask(t, "PATCH", "/api/projects/x", body)); e.Code != errs.InvalidJSON || !strings.Contains(e.Message, says) {
			t.Errorf("%s: %s %q", body, e.Code, e.Message)
		}
	}
}

// FuzzRequest sends any body and query to routes that read them: the answer is never a defect, always JSON, and what
// is refused does not reach the log.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{`{"name":"aa"}`, `{"name":`, `[]`, "\xff", `{"node":{"id":{}}}`, `{"name":"aa","metadata":{"a":null}}`, `null`, `{"a":1,"a":2}`} {
		f.Add(seed, "limit=1&cursor=cHJvamVjdHM6YQ")
	}
	f.Add("", "limit=%zz&a;b&consistent=1&status=x")
	g := newGroup(f, 1, nil)
	h := newHandler(g.replicas[0])
	f.Fuzz(func(t *testing.T, body, query string) {
		for _, target := range []struct{ method, path string }{{"POST", "/api/projects"}, {"POST", "/api/cluster/join"}, {"PATCH", "/api/cluster/settings"},
			{"POST", "/api/tokens"}, {"GET", "/api/projects"}, {"GET", "/api/deployments"}, {"POST", "/api/projects/hello/deployments"}} {
			req := httptest.NewRequestWithContext(t.Context(), target.method, target.path, strings.NewReader(body))
			req.URL.RawQuery = query
			req.Header.Set("Authorization", "Bearer "+adminSecret)
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			before := g.length()
			h.ServeHTTP(w, req)
			if w.Code == http.StatusInternalServerError || !utf8.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %s?%s %q: %d %s", target.method, target.path, query, body, w.Code, w.Body)
			}
			if w.Code == http.StatusUnsupportedMediaType && g.length() != before {
				t.Fatalf("%s %s: refused and yet in the log", target.method, target.path)
			}
		}
	})
}
