package httpapi_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/httpapi"
)

// refusal checks the one format of errors and gives what it says.
func refusal(t *testing.T, res *http.Response) api.Error {
	t.Helper()
	text := read(t, res)
	var body api.ErrorBody
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatalf("status %d, %q is not the format of errors: %v", res.StatusCode, text, err)
	}
	e := body.Error
	if res.StatusCode != errs.Status(e.Code) {
		t.Errorf("status %d for code %s", res.StatusCode, e.Code)
	}
	if e.Message == "" || e.RequestID == "" || e.RequestID != res.Header.Get("X-Request-Id") {
		t.Errorf("incomplete: %s", text)
	}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		t.Errorf("Content-Type %q", res.Header.Get("Content-Type"))
	}
	if strings.Contains(text, adminSecret) {
		t.Errorf("a secret in the answer: %s", text)
	}
	return e
}

func TestBadInputIsRefusedAtTheDoor(t *testing.T) {
	g := newGroup(t, 1, func(d *httpapi.Deps) { d.MaxUpload = 1000 })
	c := g.client(t, adminSecret, 0)
	if _, err := c.CreateProject(t.Context(), api.ProjectCreate{Name: "hello"}); err != nil {
		t.Fatal(err)
	}
	const projects, deploys = "/api/projects", "/api/projects/hello/deployments"
	gzip := []string{"Content-Type", "application/gzip"}
	for _, row := range []struct {
		name, method, path, body string
		headers                  []string
		code                     errs.Code
		field, says              string
	}{
		{"empty body", "POST", projects, "", []string{"Content-Type", "application/json"}, errs.InvalidJSON, "", "empty"},
		{"blank body", "POST", projects, "  \n", nil, errs.InvalidJSON, "", "empty"},
		{"truncated", "POST", projects, `{"name":"a"`, nil, errs.InvalidJSON, "", "offset 11"},
		{"not JSON", "POST", projects, `{name:"a"}`, nil, errs.InvalidJSON, "", "offset 2"},
		{"trailing data", "POST", projects, `{"name":"aa"} {}`, nil, errs.InvalidJSON, "", "offset 13"},
		{"unknown field", "POST", projects, `{"nme":"aa"}`, nil, errs.UnknownField, "nme", "did you mean name"},
		{"other case", "POST", projects, `{"Name":"aa"}`, nil, errs.UnknownField, "Name", "did you mean name"},
		{"far from any field", "POST", projects, `{"zzzzzzzz":1}`, nil, errs.UnknownField, "zzzzzzzz", "known are: domains, metadata, name"},
		{"nested unknown field", "POST", "/api/cluster/join", `{"node":{"idd":"x"}}`, nil, errs.UnknownField, "node.idd", "did you mean id"},
		{"field twice", "POST", projects, `{"name":"aa","name":"bb"}`, nil, errs.InvalidJSON, "name", "twice"},
		{"wrong type", "POST", projects, `{"name":7}`, nil, errs.InvalidJSON, "name", "a string, not a JSON number"},
		{"wrong type in a list", "POST", projects, `{"name":"aa","domains":[1]}`, nil, errs.InvalidJSON, "domains", "a string"},
		{"list for a map", "POST", projects, `{"name":"aa","metadata":[]}`, nil, errs.InvalidJSON, "metadata", "an object"},
		{"list for the document", "POST", projects, `[]`, nil, errs.InvalidJSON, "", "must be an object"},
		{"null for the document", "POST", projects, `null`, nil, errs.InvalidJSON, "", "must be an object"},
		{"wrong nested type", "POST", "/api/cluster/join", `{"node":"x"}`, nil, errs.InvalidJSON, "node", "must be an object"},
		{"invalid UTF-8", "POST", projects, "{\"name\":\"\xff\"}", nil, errs.InvalidJSON, "", "offset 9"},
		{"over the limit", "POST", projects, `{"name":"` + strings.Repeat("a", 1<<20) + `"}`, nil, errs.TooLarge, "", "1048576"},
		{"wrong content type", "POST", projects, `{"name":"aa"}`, []string{"Content-Type", "text/plain"}, errs.UnsupportedType, "Content-Type", "application/json"},
		{"no content type", "POST", projects, `{"name":"aa"}`, []string{"Content-Type", ""}, errs.UnsupportedType, "Content-Type", "application/json"},
		{"other charset", "POST", projects, `{"name":"aa"}`, []string{"Content-Type", "application/json; charset=latin1"}, errs.UnsupportedType, "", "UTF-8"},

		{"empty name", "POST", projects, `{"name":""}`, nil, errs.Invalid, "name", "1 to 63"},
		{"long name", "POST", projects, `{"name":"` + strings.Repeat("a", 64) + `"}`, nil, errs.Invalid, "name", ""},
		{"shell characters", "POST", projects, `{"name":"a;rm"}`, nil, errs.Invalid, "name", ""},
		{"path name", "POST", projects, `{"name":"../x"}`, nil, errs.Invalid, "name", ""},
		{"leading dash", "POST", projects, `{"name":"-a"}`, nil, errs.Invalid, "name", ""},
		{"control character", "POST", projects, `{"name":"a\u0007"}`, nil, errs.Invalid, "name", ""},
		{"bidirectional", "POST", projects, `{"name":"a\u202eb"}`, nil, errs.Invalid, "name", ""},
		{"markup", "POST", projects, `{"name":"<b>"}`, nil, errs.Invalid, "name", ""},
		{"metadata with control characters", "POST", projects, `{"name":"aa","metadata":{"k":"\u0000"}}`, nil, errs.Invalid, "metadata", ""},
		{"name in the path", "POST", "/api/projects/%2e%2e/deployments", "x", gzip, errs.Invalid, "project", ""},

		{"unknown parameter", "GET", projects + "?limmit=1", "", nil, errs.UnknownField, "limmit", "did you mean limit"},
		{"parameter of a write", "POST", projects + "?consistent=true", `{"name":"aa"}`, nil, errs.UnknownField, "consistent", "none is read"},
		{"parameter twice", "GET", projects + "?limit=1&limit=2", "", nil, errs.Invalid, "limit", "once"},
		{"limit too high", "GET", projects + "?limit=201", "", nil, errs.Invalid, "limit", "1 to 200"},
		{"limit zero", "GET", projects + "?limit=0", "", nil, errs.Invalid, "limit", ""},
		{"limit no number", "GET", projects + "?limit=ten", "", nil, errs.Invalid, "limit", ""},
		{"broken cursor", "GET", projects + "?cursor=%21%21", "", nil, errs.Invalid, "cursor", ""},
		{"cursor of another list", "GET", projects + "?cursor=dG9rZW5zOng", "", nil, errs.Invalid, "cursor", ""},
		{"cursor that is no place", "GET", "/api/deployments?cursor=ZGVwbG95bWVudHM6eA", "", nil, errs.Invalid, "cursor", ""},
		{"bad escape", "GET", projects + "?limit=%zz", "", nil, errs.Invalid, "", "escape"},
		{"control characters in a parameter", "GET", "/api/repairs?node=%00", "", nil, errs.Invalid, "node", ""},
		{"unknown status", "GET", "/api/deployments?status=done", "", nil, errs.Invalid, "status", "superseded"},
		{"unknown phase", "GET", "/api/deployments?phase=x", "", nil, errs.Invalid, "phase", "building"},
		{"unknown repair state", "GET", "/api/repairs?state=x", "", nil, errs.Invalid, "state", "pending"},
		{"consistent maybe", "GET", projects + "?consistent=maybe", "", nil, errs.Invalid, "consistent", "true or false"},
		{"min index", "GET", projects, "", []string{"X-Kontiki-Min-Index", "soon"}, errs.Invalid, "X-Kontiki-Min-Index", ""},
		{"since", "GET", "/api/events?since=x", "", nil, errs.Invalid, "since", ""},
		{"last event", "GET", "/api/events", "", []string{"Last-Event-ID", "x"}, errs.Invalid, "Last-Event-ID", ""},

		{"long key", "POST", projects, `{"name":"aa"}`, []string{"Idempotency-Key", strings.Repeat("k", 101)}, errs.Invalid, "Idempotency-Key", "1 to 100"},
		{"key with a space", "POST", projects, `{"name":"aa"}`, []string{"Idempotency-Key", "a b"}, errs.Invalid, "Idempotency-Key", ""},
		{"key not ASCII", "POST", projects, `{"name":"aa"}`, []string{"Idempotency-Key", "kéy"}, errs.Invalid, "Idempotency-Key", ""},

		{"JSON where an archive is due", "POST", deploys, `{}`, nil, errs.UnsupportedType, "Content-Type", "application/x-tar"},
		{"form upload", "POST", deploys, "x", []string{"Content-Type", "multipart/form-data; boundary=x"}, errs.UnsupportedType, "Content-Type", "application/zip"},
		{"empty upload", "POST", deploys, "", gzip, errs.InvalidArchive, "", "empty"},
		{"upload over the limit", "POST", deploys, strings.Repeat("x", 1001), gzip, errs.TooLarge, "", "1000"},
		{"no archive", "POST", deploys, "hello", gzip, errs.InvalidArchive, "", "not an archive"},
		{"unknown project", "POST", "/api/projects/nobody/deployments", "x", gzip, errs.NotFound, "", "create=true"},
		{"replicas", "POST", deploys + "?replicas=0", "x", gzip, errs.Invalid, "replicas", "1 to 1000"},
		{"health path", "POST", deploys + "?health_path=x", "x", gzip, errs.Invalid, "health.path", "slash"},
		{"zero timeout", "POST", deploys + "?health_timeout=0s", "x", gzip, errs.Invalid, "health_timeout", "30s"},
		{"health interval", "POST", deploys + "?health_interval=x", "x", gzip, errs.Invalid, "health_interval", "30s"},
		{"start period", "POST", deploys + "?health_start_period=-1s", "x", gzip, errs.Invalid, "health_start_period", "30s"},
		{"retries", "POST", deploys + "?health_retries=0", "x", gzip, errs.Invalid, "health_retries", ""},
		{"create", "POST", deploys + "?create=yes", "x", gzip, errs.Invalid, "create", ""},
		{"long label", "POST", deploys + "?label=" + strings.Repeat("l", 201), "x", gzip, errs.Invalid, "label", "200"},
		{"bidirectional label", "POST", deploys + "?label=%E2%80%AE", "x", gzip, errs.Invalid, "label", ""},

		{"duplicate project", "POST", projects, `{"name":"hello"}`, nil, errs.Exists, "name", ""},
		{"no such project", "GET", "/api/projects/nobody", "", nil, errs.NotFound, "", "nobody"},
		{"no such project to change", "PATCH", "/api/projects/nobody", `{"metadata":{"a":"b"}}`, nil, errs.NotFound, "", "nobody"},
		{"no such project to list", "GET", "/api/projects/nobody/deployments", "", nil, errs.NotFound, "", "nobody"},
		{"no such project to plan", "GET", "/api/projects/nobody/plan", "", nil, errs.NotFound, "", "create=true"},
		{"no such deployment", "GET", "/api/deployments/x", "", nil, errs.NotFound, "", ""},
		{"no such deployment to cancel", "POST", "/api/deployments/x/cancel", "", nil, errs.NotFound, "", ""},
		{"no such deployment to follow", "GET", "/api/deployments/x/events", "", nil, errs.NotFound, "", ""},
		{"no logs", "GET", "/api/deployments/x/logs", "", nil, errs.NotFound, "", ""},
		{"no such peer", "DELETE", "/api/cluster/peers/n9", "", nil, errs.NotFound, "", ""},
		{"no majority left", "DELETE", "/api/cluster/peers/n1", "", nil, errs.QuorumLoss, "", ""},
		{"the last token", "DELETE", "/api/tokens/x", "", nil, errs.NotFound, "", ""},
		{"token name", "POST", "/api/tokens", `{"name":"A B"}`, nil, errs.Invalid, "name", ""},
		{"token role", "POST", "/api/tokens", `{"name":"ci","role":"god"}`, nil, errs.Invalid, "role", "admin"},
		{"join token for ever", "POST", "/api/cluster/join-tokens", `{"ttl":"9999h"}`, nil, errs.Invalid, "ttl", "168h"},
		{"join token for a number", "POST", "/api/cluster/join-tokens", `{"ttl":60}`, nil, errs.InvalidJSON, "ttl", "string"},
		{"unknown setting", "PATCH", "/api/cluster/settings", `{"buids":3}`, nil, errs.UnknownField, "buids", "did you mean builds"},
		{"unknown deadline", "PATCH", "/api/cluster/settings", `{"deadlines":{"bilding":"3s"}}`, nil, errs.UnknownField, "deadlines.bilding", "did you mean building"},
		{"bad setting", "PATCH", "/api/cluster/settings", `{"queue":"some"}`, nil, errs.Invalid, "queue", "latest"},

		{"join without a token", "POST", "/api/cluster/join", `{"node":{"id":"n3"}}`, nil, errs.JoinToken, "token", ""},
		{"join under a bad name", "POST", "/api/cluster/join", `{"token":"t","node":{"id":"N 3"}}`, nil, errs.Invalid, "node.id", ""},
		{"join without an address", "POST", "/api/cluster/join", `{"token":"t","node":{"id":"n3","cluster_addr":"here"}}`, nil, errs.Invalid, "node.cluster_addr", "host:port"},
		{"join without a request", "POST", "/api/cluster/join", `{"token":"t","node":{"id":"n3","cluster_addr":"a:1","api_addr":"a:2","ingress_addr":"a:3"}}`, nil, errs.Invalid, "csr", ""},
		{"join with a used token", "POST", "/api/cluster/join", `{"token":"t","csr":"YQ==","node":{"id":"n3","cluster_addr":"a:1","api_addr":"a:2","ingress_addr":"a:3"}}`, nil, errs.JoinToken, "", "used"},

		{"unknown route", "GET", "/api/nothing", "", nil, errs.NotFound, "", "/api/openapi.json"},
		{"trailing slash", "GET", "/api/projects/", "", nil, errs.NotFound, "", ""},
		{"wrong method", "DELETE", "/api/projects", "", nil, errs.MethodNotAllowed, "", "POST"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := g.length()
			res := g.ask(t, row.method, row.path, row.body, row.headers...)
			e := refusal(t, res)
			if e.Code != row.code || row.field != "" && e.Field != row.field {
				t.Errorf("code %s, field %q, want %s, %q (%s)", e.Code, e.Field, row.code, row.field, e.Message)
			}
			if said := e.Message + " / " + e.Hint; !strings.Contains(said, row.says) {
				t.Errorf("%q does not say %q", said, row.says)
			}
			if row.code == errs.Invalid || row.code == errs.InvalidJSON || row.code == errs.UnknownField {
				if g.length() != before {
					t.Error("bad input reached the log")
				}
			}
			if row.code == errs.MethodNotAllowed && !strings.Contains(res.Header.Get("Allow"), "POST") {
				t.Errorf("Allow %q", res.Header.Get("Allow"))
			}
		})
	}
	state := g.replicas[0].State()
	for p := range state.Projects("") {
		if p.Name != "hello" {
			t.Errorf("project %q was created", p.Name)
		}
	}
	for d := range state.Deployments("") {
		t.Errorf("deployment %s was created", d.ID)
	}
}

func TestAuth(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	old, err := c.CreateToken(t.Context(), api.TokenCreate{Name: "old"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RevokeToken(t.Context(), old.Token.ID); err != nil {
		t.Fatal(err)
	}
	low := [32]byte{1}
	g.must(t, fsm.TokenCreate{Token: fsm.Token{ID: "low", Name: "low", Role: "reader", Hash: low[:]}})
	for _, row := range []struct {
		name, method, path string
		headers            []string
		code               errs.Code
	}{
		{"no token", "GET", "/api/projects", []string{"Authorization", ""}, errs.Unauthorized},
		{"no scheme", "GET", "/api/projects", []string{"Authorization", adminSecret}, errs.Unauthorized},
		{"another scheme", "GET", "/api/projects", []string{"Authorization", "Basic " + adminSecret}, errs.Unauthorized},
		{"empty token", "GET", "/api/projects", []string{"Authorization", "Bearer "}, errs.Unauthorized},
		{"unknown token", "GET", "/api/projects", []string{"Authorization", "Bearer nope"}, errs.Unauthorized},
		{"unknown token that waits", "GET", "/api/projects", []string{"Authorization", "Bearer nope", "X-Kontiki-Min-Index", "1"}, errs.Unauthorized},
		{"revoked token", "GET", "/api/projects", []string{"Authorization", "Bearer " + old.Secret}, errs.Unauthorized},
		{"token in the URL", "GET", "/api/projects?token=" + adminSecret, nil, errs.Unauthorized},
		{"access token in the URL", "GET", "/api/projects?access_token=" + adminSecret, nil, errs.Unauthorized},
		{"token in the URL of no route", "GET", "/nothing?token=" + adminSecret, nil, errs.Unauthorized},
		{"cross-origin write", "POST", "/api/projects", []string{"Origin", "https://evil.example"}, errs.Forbidden},
		{"cross-site delete", "DELETE", "/api/projects/x", []string{"Sec-Fetch-Site", "cross-site"}, errs.Forbidden},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := g.length()
			res := g.ask(t, row.method, row.path, "", row.headers...)
			if e := refusal(t, res); e.Code != row.code {
				t.Errorf("code %s (%s), want %s", e.Code, e.Message, row.code)
			}
			if row.code == errs.Unauthorized && res.Header.Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
			if g.length() != before {
				t.Error("it reached the log")
			}
		})
	}
	if res := g.ask(t, "GET", "/api/projects", "", "Authorization", "bearer  "+adminSecret, "Origin", "https://evil.example"); res.StatusCode != http.StatusOK {
		t.Errorf("a read with a good token: %d", res.StatusCode)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if res := g.ask(t, "GET", path, "", "Authorization", ""); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
}

func TestRoleIsChecked(t *testing.T) {
	g := newGroup(t, 1, nil)
	const secret = "reader-secret"
	g.must(t, fsm.TokenCreate{Token: fsm.Token{ID: "low", Name: "low", Role: "reader", Hash: hashOf(secret)}})
	e := refusal(t, g.ask(t, "GET", "/api/projects", "", "Authorization", "Bearer "+secret))
	if e.Code != errs.Forbidden || !strings.Contains(e.Message, "admin") {
		t.Errorf("%s: %s", e.Code, e.Message)
	}
}

// A body that ends before its Content-Length is over is not taken for a whole one.
func TestShortBody(t *testing.T) {
	g := newGroup(t, 1, nil)
	for _, row := range []struct{ path, kind, body string }{
		{"/api/projects", "application/json", `{"name":"hello"}`},
		{"/api/projects/hello/deployments?create=true", "application/gzip", string(archive("cut"))},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.replicas[0].url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			row.path, adminSecret, row.kind, len(row.body)+10, row.body)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if e := refusal(t, res); e.Code != errs.Invalid || !strings.Contains(e.Message, fmt.Sprintf("%d of %d", len(row.body), len(row.body)+10)) {
			t.Errorf("%s: %s %s", row.path, e.Code, e.Message)
		}
	}
	if g.replicas[0].State().Project("hello") != nil {
		t.Error("something was created")
	}
}

// An upload whose size is not told beforehand is cut at the limit.
func TestChunkedUploadOverTheLimit(t *testing.T) {
	g := newGroup(t, 1, func(d *httpapi.Deps) { d.MaxUpload = 1000 })
	req, err := http.NewRequestWithContext(t.Context(), "POST", g.replicas[0].url+"/api/projects/hello/deployments?create=true",
		struct{ *bytes.Reader }{bytes.NewReader(archive(strings.Repeat("x", 5000)))})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = -1
	req.Header.Set("Authorization", "Bearer "+adminSecret)
	req.Header.Set("Content-Type", "application/gzip")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if e := refusal(t, res); e.Code != errs.TooLarge || !strings.Contains(e.Message, "1000") {
		t.Errorf("%s: %s", e.Code, e.Message)
	}
}
