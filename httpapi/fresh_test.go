package httpapi_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/httpapi"
)

// A client reads its own writes through a node that lags: the read waits until the node has applied them.
func TestMinIndexWaits(t *testing.T) {
	g := newGroup(t, 2, nil)
	c := g.client(t, adminSecret, 0)
	lagging := g.client(t, adminSecret, 1)
	g.replicas[1].hold(true)
	if _, err := c.CreateProject(t.Context(), api.ProjectCreate{Name: "hello"}); err != nil {
		t.Fatal(err)
	}
	_, err := lagging.Project(t.Context(), "hello")
	wantCode(t, err, errs.NotFound) // it asks for nothing newer
	lagging.Observe(c.Index())
	done := make(chan error, 1)
	go func() { _, err := lagging.Project(t.Context(), "hello"); done <- err }()
	if waits := <-g.replicas[1].waits; waits != c.Index() {
		t.Errorf("it waits for %d, not %d", waits, c.Index())
	}
	select {
	case err := <-done:
		t.Fatalf("it answered before the node had caught up: %v", err)
	default:
	}
	g.replicas[1].hold(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A write through a node that lags is answered when that node has applied it.
func TestWriteWaitsForTheNodeThatAnswers(t *testing.T) {
	g := newGroup(t, 2, nil)
	g.replicas[1].hold(true)
	c := g.client(t, adminSecret, 1)
	done := make(chan error, 1)
	go func() { _, err := c.CreateProject(t.Context(), api.ProjectCreate{Name: "hello"}); done <- err }()
	<-g.replicas[1].waits
	g.replicas[1].hold(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestConsistentReadsAskTheLeader(t *testing.T) {
	g := newGroup(t, 2, nil)
	g.replicas[1].hold(true)
	g.must(t, fsm.ProjectCreate{Name: "hello"})
	get := func(query string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), "GET", g.replicas[1].url+"/api/projects/hello"+query, nil)
		if err != nil {
			t.Error(err)
			return nil
		}
		req.Header.Set("Authorization", "Bearer "+adminSecret)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return nil
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	if res := get(""); res.StatusCode != http.StatusNotFound {
		t.Errorf("a read of what is here: %d", res.StatusCode)
	}
	done := make(chan *http.Response, 1)
	go func() { done <- get("?consistent=true") }()
	<-g.replicas[1].waits
	g.replicas[1].hold(false)
	res := <-done
	if res.StatusCode != http.StatusOK || res.Header.Get("X-Kontiki-Index") != strconv.Itoa(g.length()) ||
		res.Header.Get("X-Kontiki-Known-Leader") != "n1" || res.Header.Get("X-Kontiki-Stale-Ms") != "7" || res.Header.Get("X-Kontiki-Node") != "n2" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	g.down.Store(errs.New(errs.NoLeader, "there is no leader"))
	res = get("?consistent=true")
	if e := refusal(t, res); e.Code != errs.NoLeader || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s, Retry-After %q", e.Code, res.Header.Get("Retry-After"))
	}
	if res := get(""); res.StatusCode != http.StatusOK {
		t.Errorf("without a leader: %d", res.StatusCode)
	}
}

// While there is no leader writes are refused with Retry-After; the client repeats them under one key until there is.
func TestWritesOutliveAnElection(t *testing.T) {
	g := newGroup(t, 2, nil)
	g.down.Store(errs.New(errs.NoLeader, "there is no leader"))
	res := g.ask(t, "POST", "/api/projects", `{"name":"hello"}`)
	if e := refusal(t, res); e.Code != errs.NoLeader || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s, Retry-After %q", res.StatusCode, e.Code, res.Header.Get("Retry-After"))
	}
	asked := make(chan struct{}, 100)
	slow, err := client.New(client.Config{Addresses: []string{g.replicas[0].url, g.replicas[1].url}, Token: adminSecret,
		HTTPClient: &http.Client{Transport: counting{asked}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := slow.CreateProject(t.Context(), api.ProjectCreate{Name: "hello"}); done <- err }()
	for range 3 {
		<-asked
	}
	g.down.Store(nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

type counting struct{ asked chan struct{} }

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.asked <- struct{}{}
	return http.DefaultTransport.RoundTrip(r)
}

// What never comes is not waited for for ever. The clock is virtual.
func TestWaitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fsm.New()
		f.Apply(1, 1, fsm.EncodeEntry([][]byte{fsm.NewCommand(fsm.ClusterInit{ID: "c", Settings: fsm.DefaultSettings(), Node: fsm.Node{ID: "n1", ClusterAddr: "a:1"},
			Token: fsm.Token{ID: "t", Name: "admin", Role: "admin", Hash: hashOf("x")}}, "test").Encode()}))
		r := &stuck{FSM: f}
		h := httpapi.New(httpapi.Deps{Replica: r, Node: &replica{FSM: f, id: "n1"}})
		for _, row := range []struct {
			method, path, body string
			index              string
			code               errs.Code
		}{
			{"GET", "/api/projects", "", "99", errs.Timeout},
			{"GET", "/api/projects?consistent=true", "", "", errs.Timeout},
			{"GET", "/api/events?since=99", "", "", errs.Timeout},
			{"POST", "/api/projects", `{"name":"hello"}`, "", errs.Timeout},
		} {
			req := httptest.NewRequestWithContext(t.Context(), row.method, row.path, strings.NewReader(row.body))
			req.Header.Set("Authorization", "Bearer x")
			req.Header.Set("Content-Type", "application/json")
			if row.index != "" {
				req.Header.Set("X-Kontiki-Min-Index", row.index)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if e := refusal(t, w.Result()); e.Code != row.code || w.Code != http.StatusGatewayTimeout {
				t.Errorf("%s %s: %d %s", row.method, row.path, w.Code, e.Message)
			}
		}
	})
}

// stuck has a leader that knows more than it will ever apply, and answers no proposal.
type stuck struct{ *fsm.FSM }

func (s *stuck) Propose(ctx context.Context, _ fsm.Command) (fsm.Result, error) {
	<-ctx.Done()
	return fsm.Result{}, ctx.Err()
}

func (s *stuck) ReadIndex(context.Context) (uint64, error) { return 1000, nil }

// A panic is an answer with the request's ID, and a line in the log.
func TestPanicIsAnAnswer(t *testing.T) {
	logs := &syncBuffer{}
	g := newGroup(t, 1, func(d *httpapi.Deps) {
		d.Logs = panicking{}
		d.Logger = slog.New(slog.NewTextHandler(logs, nil))
	})
	c := g.client(t, adminSecret, 0)
	d := deploy(t, c, "hello", "x")
	res := g.ask(t, "GET", "/api/deployments/"+d.ID+"/logs", "", "X-Request-Id", "my.request_1")
	if e := refusal(t, res); e.Code != errs.Internal || e.RequestID != "my.request_1" || strings.Contains(e.Message, "secret thing") {
		t.Errorf("%+v", e)
	}
	if text := logs.String(); !strings.Contains(text, "my.request_1") || !strings.Contains(text, "secret thing") {
		t.Errorf("log: %s", text)
	}
}

type panicking struct{}

func (panicking) Logs(context.Context, string) ([]api.LogLine, error) { panic("secret thing") }

func TestRequestIDs(t *testing.T) {
	g := newGroup(t, 1, nil)
	seen := map[string]bool{}
	for _, given := range []string{"", "with space", "<b>", strings.Repeat("x", 65)} {
		id := g.ask(t, "GET", "/healthz", "", "X-Request-Id", given).Header.Get("X-Request-Id")
		if id == "" || id == given || seen[id] {
			t.Errorf("given %q, answered %q", given, id)
		}
		seen[id] = true
	}
	if id := g.ask(t, "GET", "/healthz", "", "X-Request-Id", "a-B_c.1").Header.Get("X-Request-Id"); id != "a-B_c.1" {
		t.Errorf("a harmless ID became %q", id)
	}
}

func TestHead(t *testing.T) {
	g := newGroup(t, 1, nil)
	res := g.ask(t, "HEAD", "/healthz", "", "Authorization", "")
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || len(b) != 0 || res.Header.Get("Content-Length") == "" {
		t.Errorf("%d %q %v", res.StatusCode, b, res.Header)
	}
}

// A node that has just started knows no token yet and does not turn anybody away for that.
func TestANodeThatCatchesUpRefusesNoToken(t *testing.T) {
	g := newGroup(t, 2, nil)
	impatient, err := client.New(client.Config{Addresses: []string{g.replicas[1].url}, Token: "kt_nobody", Patience: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(impatient.Close)
	g.replicas[1].notUp.Store(errs.New(errs.Unavailable, "catching up"))
	_, err = impatient.Projects(t.Context(), client.List{})
	wantCode(t, err, errs.Unavailable)
	g.replicas[1].notUp.Store(nil)
	_, err = impatient.Projects(t.Context(), client.List{})
	wantCode(t, err, errs.Unauthorized)
}
