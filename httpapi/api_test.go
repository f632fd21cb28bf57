package httpapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
)

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func wantCode(t *testing.T, err error, code errs.Code) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Errorf("error %v, want code %s", err, code)
	}
}

// Every route is used once as it is meant, through a node that does not lead.
func TestEveryRouteThroughAFollower(t *testing.T) {
	g := newGroup(t, 2, nil)
	c := g.client(t, adminSecret, 1)
	ctx := t.Context()
	no := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p, err := c.CreateProject(ctx, api.ProjectCreate{Name: "hello", Domains: []string{"b.example.org", "a.example.org"}, Metadata: map[string]string{"k": "v"}})
	no(err)
	if want := []string{"a.example.org", "b.example.org"}; !cmp.Equal(p.Domains, want) || p.Metadata["k"] != "v" || p.CreateIndex == 0 {
		t.Errorf("project %+v", p)
	}
	p, err = c.UpdateProject(ctx, "hello", api.ProjectUpdate{Domains: &[]string{}, Metadata: map[string]string{"k": "", "l": "w"}})
	no(err)
	if len(p.Domains) != 0 || !cmp.Equal(p.Metadata, map[string]string{"l": "w"}) {
		t.Errorf("updated project %+v", p)
	}
	list, err := c.Projects(ctx, client.List{})
	no(err)
	if len(list.Items) != 1 || list.NextCursor != "" {
		t.Errorf("projects %+v", list)
	}
	d := deploy(t, c, "hello", "one")
	if d.Number != 1 || d.Source.Format != "tar.gz" || d.Source.Label != "one" || d.Status != fsm.StatusQueued || d.Actor != "admin" {
		t.Errorf("deployment %+v", d)
	}
	g.bring(t, d.ID)
	got, err := c.Deployment(ctx, d.ID)
	no(err)
	if got.Status != fsm.StatusActive || len(got.Steps) == 0 || len(got.Events) == 0 {
		t.Errorf("deployment %+v", got)
	}
	second := deploy(t, c, "hello", "two")
	plan, err := c.Plan(ctx, "hello", client.How{Replicas: 1})
	no(err)
	if plan.CreateProject || plan.Number != 3 || plan.Replaces == nil || plan.Replaces.ID != d.ID || len(plan.Cancels) != 1 || len(plan.Nodes) != 1 || plan.Host != "hello.kontiki.localhost" {
		t.Errorf("plan %+v", plan)
	}
	fresh, err := c.Plan(ctx, "fresh", client.How{Create: true, Replicas: fsm.ReplicasAll})
	no(err)
	if !fresh.CreateProject || fresh.Number != 1 || len(fresh.Nodes) != 2 {
		t.Errorf("plan %+v", fresh)
	}
	cancelled, err := c.Cancel(ctx, second.ID)
	no(err)
	if cancelled.Status != fsm.StatusCancelled {
		t.Errorf("cancelled %s", cancelled.Status)
	}
	_, err = c.Cancel(ctx, second.ID)
	wantCode(t, err, errs.Conflict)
	logs, err := c.Logs(ctx, d.ID)
	no(err)
	if len(logs.Lines) != 1 || logs.Deployment != d.ID {
		t.Errorf("logs %+v", logs)
	}
	no(c.DeleteProject(ctx, "hello"))
	_, err = c.Project(ctx, "hello")
	wantCode(t, err, errs.NotFound)
	repairs, err := c.Repairs(ctx, client.RepairFilter{Node: "n1", State: fsm.StepPending})
	no(err)
	if len(repairs.Items) == 0 || repairs.Items[0].Node != "n1" {
		t.Errorf("repairs %+v", repairs)
	}
}

func TestClusterRoutes(t *testing.T) {
	g := newGroup(t, 2, nil)
	c := g.client(t, adminSecret, 1)
	ctx := t.Context()
	no := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := c.Version(ctx)
	no(err)
	if v.Version != "v-test" || v.Node != "n2" || v.Cluster != "c1" {
		t.Errorf("version %+v", v)
	}
	no(c.Ready(ctx))
	g.replicas[1].notUp.Store(errs.New(errs.NoLeader, "there is no leader"))
	wantCode(t, c.Ready(ctx), errs.NoLeader)
	g.replicas[1].notUp.Store(errs.New(errs.Internal, "catching up"))
	wantCode(t, c.Ready(ctx), errs.Unavailable)
	status, err := c.Status(ctx)
	no(err)
	peers, err := c.Peers(ctx)
	no(err)
	if status.Leader != "n1" || len(peers.Items) != 1 || peers.Items[0].ID != "n1" || peers.Items[0].Role != api.RoleLeader {
		t.Errorf("status %+v, peers %+v", status, peers)
	}
	h, err := c.Hashes(ctx)
	no(err)
	if !h.Equal || h.Hashes["n1"] != "ab" {
		t.Errorf("hashes %+v", h)
	}
	no(c.RemovePeer(ctx, "n2"))
	s, err := c.UpdateSettings(ctx, map[string]any{"builds": 7, "deadlines": map[string]string{"building": "2m"}})
	no(err)
	again, err := c.Settings(ctx)
	no(err)
	if s.Builds != 7 || s.Deadlines[fsm.PhaseBuilding] != 120_000 || s.Deadlines[fsm.PhaseHealthCheck] != 300_000 || !cmp.Equal(s, again) {
		t.Errorf("settings %+v", s)
	}
	join, err := c.CreateJoinToken(ctx, 0)
	no(err)
	if !strings.HasPrefix(join.Token, "kj1.fp.") || join.ExpiresAt <= fsm.Now() {
		t.Errorf("join token %+v", join)
	}
	anyone := g.client(t, "", 0)
	answer, err := anyone.Join(ctx, api.JoinRequest{Token: "kj1.fp.good", CSR: []byte("DER"), Node: api.JoinNode{ID: "n3", ClusterAddr: "h:1", APIAddr: "h:2", IngressAddr: "[::1]:3"}})
	no(err)
	if answer.ClusterID != "c1" || string(answer.Certificate) != "PEM" || answer.Nodes[0].ID != "n3" {
		t.Errorf("join %+v", answer)
	}
	audit, err := c.Audit(ctx, client.List{Limit: 2})
	no(err)
	if len(audit.Items) != 2 || audit.Items[0].Action != "join_token.create" || audit.Items[0].Actor != "admin" || audit.NextCursor == "" {
		t.Errorf("audit %+v", audit)
	}
}

func TestTokens(t *testing.T) {
	g := newGroup(t, 2, nil)
	c := g.client(t, adminSecret, 0)
	ctx := t.Context()
	made, err := c.CreateToken(ctx, api.TokenCreate{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	// The token is used through a node that has not applied it yet.
	g.replicas[1].hold(true)
	second, err := c.CreateToken(ctx, api.TokenCreate{Name: "ci2"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(second.Secret, "kt_") {
		t.Errorf("a token begins with %.3s", second.Secret)
	}
	other := g.client(t, second.Secret, 1)
	other.Observe(c.Index())
	done := make(chan error, 1)
	go func() { _, err := other.Version(ctx); done <- err }()
	<-g.replicas[1].waits
	g.replicas[1].hold(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := c.RevokeToken(ctx, made.Token.ID); err != nil {
		t.Fatal(err)
	}
	_, err = g.client(t, made.Secret, 1).Version(ctx)
	wantCode(t, err, errs.Unauthorized)
	list, err := c.Tokens(ctx, client.List{})
	if err != nil || len(list.Items) != 3 {
		t.Fatalf("tokens %+v, %v", list, err)
	}
	for _, secret := range []string{adminSecret, made.Secret, second.Secret} {
		if text := read(t, g.ask(t, "GET", "/api/tokens", "")); strings.Contains(text, secret) || strings.Contains(text, "hash") {
			t.Errorf("a list of tokens says too much: %s", text)
		}
	}
}

func TestOneHundredRequestsOneDeployment(t *testing.T) {
	g := newGroup(t, 2, nil)
	c := g.client(t, adminSecret, 0, 1)
	ids := make([]string, 100)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			d, err := c.Deploy(client.WithKey(t.Context(), "the-key"), client.DeployRequest{Project: "hello",
				Archive: bytes.NewReader(archive("same")), How: client.How{Create: true}})
			if err != nil {
				t.Error(err)
			}
			ids[i] = d.ID
		})
	}
	wg.Wait()
	if slices.Sort(ids); ids[0] == "" || len(slices.Compact(ids)) != 1 {
		t.Errorf("deployments %v", slices.Compact(ids))
	}
	n := 0
	for range g.replicas[0].State().Deployments("") {
		n++
	}
	if n != 1 {
		t.Errorf("%d deployments", n)
	}
	for name, r := range map[string]client.DeployRequest{
		"content": {Project: "hello", Archive: bytes.NewReader(archive("other")), How: client.How{Create: true}},
		"query":   {Project: "hello", Archive: bytes.NewReader(archive("same")), How: client.How{Create: true, Label: "x"}},
		"path":    {Project: "other", Archive: bytes.NewReader(archive("same")), How: client.How{Create: true}},
	} {
		_, err := c.Deploy(client.WithKey(t.Context(), "the-key"), r)
		if errs.CodeOf(err) != errs.IdempotencyReuse {
			t.Errorf("another %s under the same key: %v", name, err)
		}
	}
	// Another token's key of the same name is another key.
	made, err := c.CreateToken(t.Context(), api.TokenCreate{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	ci := g.client(t, made.Secret, 0)
	if d, err := ci.Deploy(client.WithKey(t.Context(), "the-key"), client.DeployRequest{Project: "hello", Archive: bytes.NewReader(archive("other"))}); err != nil || d.ID == ids[0] {
		t.Errorf("another token's key: %v", err)
	}
}

// A repetition has the answer of the first time, also where the answer has a secret that is stored nowhere.
func TestReplays(t *testing.T) {
	g := newGroup(t, 1, nil)
	for _, row := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"project", "POST", "/api/projects", `{"name":"hello","metadata":{"a":"b"}}`, 201},
		{"project changed", "PATCH", "/api/projects/hello", `{"metadata":{"a":"c"}}`, 200},
		{"token", "POST", "/api/tokens", `{"name":"ci"}`, 201},
		{"join token", "POST", "/api/cluster/join-tokens", `{"ttl":"5m"}`, 201},
		{"settings", "PATCH", "/api/cluster/settings", `{"builds":9}`, 200},
		{"refusal", "POST", "/api/projects", `{"name":"hello"}`, 409},
		{"peer", "DELETE", "/api/cluster/peers/n2", "", 204},
		{"deletion", "DELETE", "/api/projects/hello", "", 204},
	} {
		t.Run(row.name, func(t *testing.T) {
			key := []string{"Idempotency-Key", "key-" + strings.ReplaceAll(row.name, " ", "-"), "X-Request-Id", "req-1"}
			first := g.ask(t, row.method, row.path, row.body, key...)
			second := g.ask(t, row.method, row.path, row.body, key...)
			if first.StatusCode != row.status || second.StatusCode != row.status {
				t.Fatalf("status %d, then %d: %s", first.StatusCode, second.StatusCode, read(t, second))
			}
			if a, b := read(t, first), read(t, second); a != b {
				t.Errorf("answers differ:\n%s\n%s", a, b)
			}
			if first.Header.Get("Idempotency-Replayed") != "" || second.Header.Get("Idempotency-Replayed") != "true" {
				t.Error("Idempotency-Replayed")
			}
			if first.Header.Get("Location") != second.Header.Get("Location") {
				t.Error("Location differs")
			}
			if first.Header.Get("X-Kontiki-Index") != second.Header.Get("X-Kontiki-Index") || first.Header.Get("X-Kontiki-Index") == "" {
				t.Errorf("index %q, then %q", first.Header.Get("X-Kontiki-Index"), second.Header.Get("X-Kontiki-Index"))
			}
		})
	}
	// The same document written in another way is the same request.
	a := g.ask(t, "POST", "/api/projects", `{"name":"x1","metadata":{"a":"1","b":"2"}}`, "Idempotency-Key", "form")
	b := g.ask(t, "POST", "/api/projects", ` {"metadata":{"b":"2","a":"1"}, "name":"x1"}`, "Idempotency-Key", "form")
	if a.StatusCode != 201 || b.StatusCode != 201 {
		t.Errorf("status %d, then %d", a.StatusCode, b.StatusCode)
	}
	if c := g.ask(t, "POST", "/api/projects", `{"name":"x2"}`, "Idempotency-Key", "form"); c.StatusCode != http.StatusConflict {
		t.Errorf("another document: %d", c.StatusCode)
	}
}

func TestSecretsDoNotComeFromTheKeyAlone(t *testing.T) {
	g := newGroup(t, 1, nil)
	a := g.client(t, adminSecret, 0)
	one, err := a.CreateToken(t.Context(), api.TokenCreate{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	b := g.client(t, one.Secret, 0)
	key := func() context.Context { return client.WithKey(t.Context(), "same") }
	two, err := a.CreateToken(key(), api.TokenCreate{Name: "two"})
	if err != nil {
		t.Fatal(err)
	}
	three, err := b.CreateToken(key(), api.TokenCreate{Name: "three"})
	if err != nil {
		t.Fatal(err)
	}
	if two.Secret == three.Secret || len(two.Secret) < 40 || len(one.Secret) < 40 {
		t.Errorf("secrets %q %q %q", one.Secret, two.Secret, three.Secret)
	}
}

// walk lists everything in parts of two and checks that nothing is missing or twice.
func walk[T any](t *testing.T, what string, list func(client.List) (api.Page[T], error), id func(T) string) []string {
	t.Helper()
	var ids []string
	l := client.List{Limit: 2}
	for range 1000 {
		page, err := list(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			ids = append(ids, id(item))
		}
		if l.Cursor = page.NextCursor; l.Cursor == "" {
			break
		}
		if len(page.Items) != 2 {
			t.Errorf("%s: a part in the middle has %d items", what, len(page.Items))
		}
	}
	var all []string
	for item, err := range client.All(list) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, id(item))
	}
	if !slices.Equal(ids, all) {
		t.Errorf("%s: by two %v, by many %v", what, ids, all)
	}
	return ids
}

func TestListsWalk(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	ctx := t.Context()
	g.must(t, fsm.SettingsPut{From: 1, Settings: func() fsm.Settings { s := fsm.DefaultSettings(); s.Queue = "all"; return s }()})
	var made []string
	for i := range 7 {
		d := deploy(t, c, fmt.Sprintf("p%d", i%2), fmt.Sprint(i))
		made = append([]string{d.ID}, made...)
		if i%3 == 0 {
			if _, err := c.Cancel(ctx, d.ID); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.CreateToken(ctx, api.TokenCreate{Name: fmt.Sprintf("t%d", i)}); err != nil {
			t.Fatal(err)
		}
		g.must(t, fsm.RepairOrder{Repair: fsm.RepairFetchBlob, Node: "n1", Digest: fmt.Sprintf("sha256:%064d", i), Reason: "test"})
	}
	deployments := func(f client.Filter) func(client.List) (api.Page[fsm.Deployment], error) {
		return func(l client.List) (api.Page[fsm.Deployment], error) { f.List = l; return c.Deployments(ctx, f) }
	}
	id := func(d fsm.Deployment) string { return d.ID }
	if got := walk(t, "all", deployments(client.Filter{}), id); !slices.Equal(got, made) {
		t.Errorf("deployments %v, want %v", got, made)
	}
	if got := walk(t, "of a project", deployments(client.Filter{Project: "p1"}), id); len(got) != 3 {
		t.Errorf("of p1: %v", got)
	}
	if got := walk(t, "queued", deployments(client.Filter{Status: fsm.StatusQueued}), id); len(got) != 4 || !slices.IsSortedFunc(got, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("queued: %v", got)
	}
	if got := walk(t, "cancelled", deployments(client.Filter{Status: fsm.StatusCancelled, Project: "p0"}), id); len(got) != 2 {
		t.Errorf("cancelled: %v", got)
	}
	if got := walk(t, "by phase", deployments(client.Filter{Phase: fsm.PhaseQueued, Project: "p1"}), id); len(got) != 2 {
		t.Errorf("by phase: %v", got)
	}
	walk(t, "projects", func(l client.List) (api.Page[fsm.Project], error) { return c.Projects(ctx, l) }, func(p fsm.Project) string { return p.Name })
	if got := walk(t, "tokens", func(l client.List) (api.Page[fsm.Token], error) { return c.Tokens(ctx, l) }, func(p fsm.Token) string { return p.ID }); len(got) != 8 {
		t.Errorf("tokens: %v", got)
	}
	repairs := func(l client.List) (api.Page[fsm.Repair], error) { return c.Repairs(ctx, client.RepairFilter{List: l}) }
	if got := walk(t, "repairs", repairs, func(r fsm.Repair) string { return r.Digest[70:] }); !slices.Equal(got, []string{"6", "5", "4", "3", "2", "1", "0"}) {
		t.Errorf("repairs: %v", got)
	}
	audit := func(l client.List) (api.Page[fsm.Audit], error) { return c.Audit(ctx, l) }
	if got := walk(t, "audit", audit, func(a fsm.Audit) string { return fmt.Sprint(a.Index, a.Action) }); len(got) != len(g.replicas[0].Audit(1000)) {
		t.Errorf("audit: %v", got)
	}
	page, err := c.Deployments(ctx, client.Filter{})
	if err != nil || page.Items[0].Events != nil {
		t.Error("a list has timelines")
	}
}

func TestOpenAPINamesEveryRoute(t *testing.T) {
	g := newGroup(t, 1, nil)
	var doc struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(read(t, g.ask(t, "GET", "/api/openapi.json", ""))), &doc); err != nil {
		t.Fatal(err)
	}
	routes := []string{"GET /healthz", "GET /readyz", "GET /api/version", "GET /api/projects", "POST /api/projects",
		"GET /api/projects/{project}", "PATCH /api/projects/{project}", "DELETE /api/projects/{project}",
		"GET /api/projects/{project}/deployments", "POST /api/projects/{project}/deployments", "GET /api/projects/{project}/plan",
		"GET /api/deployments", "GET /api/deployments/{id}", "POST /api/deployments/{id}/cancel", "GET /api/deployments/{id}/logs",
		"GET /api/deployments/{id}/events", "GET /api/events", "GET /api/cluster", "GET /api/cluster/peers",
		"DELETE /api/cluster/peers/{id}", "GET /api/cluster/hashes", "POST /api/cluster/join", "POST /api/cluster/join-tokens",
		"GET /api/tokens", "POST /api/tokens", "DELETE /api/tokens/{id}", "GET /api/cluster/settings", "PATCH /api/cluster/settings",
		"GET /api/repairs", "GET /api/audit", "GET /api/openapi.json"}
	n := 0
	for path, methods := range doc.Paths {
		for method := range methods {
			n++
			if route := strings.ToUpper(method) + " " + path; !slices.Contains(routes, route) {
				t.Errorf("%s is not expected", route)
			}
		}
	}
	if n != len(routes) || doc.OpenAPI == "" {
		t.Errorf("%d routes in the document, %d expected", n, len(routes))
	}
	for _, route := range routes { // each is indeed served
		method, path, _ := strings.Cut(route, " ")
		res := g.ask(t, method, strings.NewReplacer("{project}", "x", "{id}", "x").Replace(path), "", "Authorization", "")
		if e := res.StatusCode; e == http.StatusMethodNotAllowed || e == http.StatusNotFound {
			t.Errorf("%s: %d", route, e)
		}
	}
}

func TestNoSecretIsLogged(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	made, err := c.CreateToken(t.Context(), api.TokenCreate{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	join, err := c.CreateJoinToken(t.Context(), 120_000)
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.client(t, "", 0).Join(t.Context(), api.JoinRequest{Token: join.Token, CSR: []byte("x"), Node: api.JoinNode{ID: "n3", ClusterAddr: "a:1", APIAddr: "a:1", IngressAddr: "a:1"}})
	wantCode(t, err, errs.JoinToken)
	g.ask(t, "GET", "/api/projects?token="+made.Secret, "")
	g.ask(t, "GET", "/api/nothing/"+made.Secret, "")
	g.ask(t, "POST", "/api/cluster/join", `{"token":"`+join.Token+`"`)
	logs := g.replicas[0].logs.String()
	if !strings.Contains(logs, "/api/tokens") || !strings.Contains(logs, "request_id=") {
		t.Errorf("requests are not logged: %s", logs)
	}
	for _, secret := range []string{adminSecret, made.Secret, join.Token} {
		if strings.Contains(logs, secret) {
			t.Error("a secret is in the log")
		}
	}
}
