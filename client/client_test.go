package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

func start(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newClient(t *testing.T, cfg Config, addresses ...string) *Client {
	t.Helper()
	cfg.Addresses = addresses
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func refuse(w http.ResponseWriter, code errs.Code) {
	w.WriteHeader(errs.Status(code))
	_ = json.NewEncoder(w).Encode(api.ErrorBody{Error: api.Error{Error: *errs.New(code, "no").WithField("f").WithHint("h")}})
}

// dead is the address of a node that does not run.
func dead(t *testing.T) string {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}

func TestNewRefusesWhatIsNoAddress(t *testing.T) {
	for _, bad := range [][]string{nil, {""}, {"ftp://x"}, {"http://"}, {"http://user:pw@x"}, {"http://x?y"}, {"a b"}, {"http://a", "::"}} {
		if _, err := New(Config{Addresses: bad}); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	c, err := New(Config{Addresses: []string{"127.0.0.1:7400", "http://x/base/"}})
	if err != nil || c.nodes[0].String() != "https://127.0.0.1:7400" || c.nodes[1].String() != "http://x/base" {
		t.Errorf("%v %v", c.nodes, err)
	}
}

// A write goes to node after node under one key until one does it.
func TestWritesAreRepeatedUnderOneKey(t *testing.T) {
	var mu sync.Mutex
	keys, bodies := map[string]int{}, map[string]int{}
	note := func(r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get("Idempotency-Key")]++
		bodies[string(b)]++
	}
	breaks := start(t, func(_ http.ResponseWriter, r *http.Request) { note(r); panic(http.ErrAbortHandler) })
	leaderless := start(t, func(w http.ResponseWriter, r *http.Request) { note(r); refuse(w, errs.NoLeader) })
	proxy := start(t, func(w http.ResponseWriter, r *http.Request) { note(r); http.Error(w, "<html>", http.StatusBadGateway) })
	good := start(t, func(w http.ResponseWriter, r *http.Request) {
		note(r)
		w.Header().Set("X-Kontiki-Index", "7")
		_, _ = io.WriteString(w, `{"name":"hello"}`)
	})
	c := newClient(t, Config{}, dead(t), breaks, leaderless, proxy, good)
	p, err := c.CreateProject(t.Context(), api.ProjectCreate{Name: "hello"})
	if err != nil || p.Name != "hello" || c.Index() != 7 {
		t.Fatalf("%+v, %v, index %d", p, err, c.Index())
	}
	if len(keys) != 1 || keys[""] > 0 || len(bodies) != 1 || bodies[`{"name":"hello"}`] != 4 {
		t.Errorf("keys %v, bodies %v", keys, bodies)
	}
	if _, err := c.CreateProject(t.Context(), api.ProjectCreate{Name: "hello"}); err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 || bodies[`{"name":"hello"}`] != 5 {
		t.Errorf("the node that answered is not asked first: keys %v, bodies %v", keys, bodies)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	var asked atomic.Int64
	other := start(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); refuse(w, errs.Conflict) })
	c := newClient(t, Config{}, start(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, errs.Exists) }), other)
	_, err := c.CreateProject(t.Context(), api.ProjectCreate{Name: "x"})
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.Exists || e.Field != "f" || e.Hint != "h" || asked.Load() != 0 {
		t.Errorf("%v, other node asked %d times", err, asked.Load())
	}
	for name, h := range map[string]http.HandlerFunc{
		"another program":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who?", http.StatusTeapot) },
		"a redirect":         func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) },
		"not JSON":           func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"cut off":            func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"name":`) },
		"no body at all":     func(http.ResponseWriter, *http.Request) {},
		"of another version": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"name":7}`) },
	} {
		_, err := newClient(t, Config{}, start(t, h)).Project(t.Context(), "x")
		if errs.CodeOf(err) != errs.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked.Load() != 0 {
		t.Error("a redirect was followed with the token")
	}
}

func TestPatienceEnds(t *testing.T) {
	c := newClient(t, Config{Patience: time.Millisecond}, dead(t), dead(t))
	_, err := c.Project(t.Context(), "x")
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "tried 127.0.0.1:") {
		t.Errorf("%v", err)
	}
	c = newClient(t, Config{Patience: time.Millisecond}, start(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, errs.NoLeader) }))
	if _, err := c.Project(t.Context(), "x"); errs.CodeOf(err) != errs.NoLeader {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c = newClient(t, Config{}, start(t, func(w http.ResponseWriter, _ *http.Request) { cancel(); refuse(w, errs.Unavailable) }), dead(t))
	if _, err := c.Project(ctx, "x"); err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
	if _, err := newClient(t, Config{}, dead(t)).Project(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A node that is stopped takes connections and says nothing: it is left for the next one.
func TestSilentNodeIsLeft(t *testing.T) {
	release := make(chan struct{})
	silent := start(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	good := start(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"name":"x"}`) })
	c := newClient(t, Config{Idle: 50 * time.Millisecond}, silent, good)
	if p, err := c.Project(t.Context(), "x"); err != nil || p.Name != "x" {
		t.Fatal(err)
	}
}

func TestMinIndexIsSentBack(t *testing.T) {
	var seen atomic.Value
	url := start(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("X-Kontiki-Min-Index") + "|" + r.Header.Get("Authorization"))
		w.Header().Set("X-Kontiki-Index", "12")
		_, _ = io.WriteString(w, "{}")
	})
	c := newClient(t, Config{Token: "s"}, url)
	for _, want := range []string{"|Bearer s", "12|Bearer s"} {
		if _, err := c.Project(t.Context(), "x"); err != nil || seen.Load() != want {
			t.Errorf("sent %q, want %q, %v", seen.Load(), want, err)
		}
	}
	c.Observe(5)
	if c.Index() != 12 {
		t.Error("the index went back")
	}
}

// An upload that breaks is sent again whole, to the next node, from a reader that can only be read once at a time.
func TestUploadIsSentAgainWhole(t *testing.T) {
	archive := bytes.Repeat([]byte("kontiki "), 1<<17) // 1 MiB
	half := start(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, int64(len(archive)/2))
		panic(http.ErrAbortHandler)
	})
	var query string
	good := start(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(b, archive) || r.ContentLength != int64(len(archive)) {
			http.Error(w, "not what was sent", http.StatusTeapot)
			return
		}
		query = r.URL.RawQuery
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"d1"}`)
	})
	c := newClient(t, Config{}, half, good)
	var sent []int64
	d, err := c.Deploy(t.Context(), DeployRequest{Project: "hello", Archive: bytes.NewReader(archive), OnSent: func(n int64) { sent = append(sent, n) },
		How: How{Create: true, Replicas: fsm.ReplicasAll, Label: "v 1", Health: fsm.Health{Path: "/ok", Interval: 5000, Timeout: 1000, Retries: 2, StartPeriod: 100}}})
	if err != nil || d.ID != "d1" {
		t.Fatalf("%+v %v", d, err)
	}
	if want := "create=true&health_interval=5s&health_path=%2Fok&health_retries=2&health_start_period=100ms&health_timeout=1s&label=v+1&replicas=all"; query != want {
		t.Errorf("query %s", query)
	}
	if len(sent) == 0 || sent[len(sent)-1] != int64(len(archive)) {
		t.Errorf("told of %d sent", len(sent))
	}
}

type noSeek struct{ io.Reader }

func (noSeek) Seek(int64, int) (int64, error) { return 0, errors.New("cannot") }

func TestUploadNeedsASeeker(t *testing.T) {
	c := newClient(t, Config{}, dead(t))
	_, err := c.Deploy(t.Context(), DeployRequest{Project: "x", Archive: noSeek{strings.NewReader("x")}})
	if errs.CodeOf(err) != errs.Invalid {
		t.Errorf("%v", err)
	}
}

func message(id int, index uint64, message string) string {
	text := fmt.Sprintf("event: event\ndata: {\"type\":\"event\",\"index\":%d,\"deployment\":\"d\",\"event\":{\"index\":%d,\"message\":%q,\"at\":null}}\n\n", index, index, message)
	if id > 0 {
		return fmt.Sprintf("id: %d\n", id) + text
	}
	return text
}

// Connections break anywhere in a stream: nothing is told twice, nothing is left out.
func TestFollowThroughBrokenConnections(t *testing.T) {
	var asked []string
	parts := []string{
		": hello\n\n" + message(1, 1, "one") + message(0, 2, "two a"),
		message(0, 2, "two a") + message(2, 2, "two b") + "id: 3\nevent: event\ndata: {\"type\":\"ev",
		"",
		message(3, 3, "three") + "id: 4\nevent: end\ndata: {\"type\":\"end\",\"index\":4,\"deployment\":\"d\",\"status\":\"active\"}\n\n",
	}
	url := start(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Last-Event-ID"))
		if len(asked) > len(parts) {
			refuse(w, errs.Internal)
			return
		}
		_, _ = io.WriteString(w, parts[len(asked)-1])
	})
	c := newClient(t, Config{}, url)
	var told []string
	err := c.Follow(t.Context(), "d", 0, func(e api.Event) error {
		if e.Event != nil {
			told = append(told, e.Event.Message)
		} else {
			told = append(told, string(e.Type))
		}
		return nil
	})
	if want := "one, two a, two b, three, end"; err != nil || strings.Join(told, ", ") != want {
		t.Errorf("told %q, %v", told, err)
	}
	if want := ",1,2,2"; strings.Join(asked, ",") != want {
		t.Errorf("asked for what follows %q", asked)
	}
}

func TestFollowGivesUp(t *testing.T) {
	c := newClient(t, Config{Patience: time.Millisecond}, start(t, func(http.ResponseWriter, *http.Request) {}))
	if err := c.Follow(t.Context(), "d", 0, func(api.Event) error { return nil }); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("%v", err)
	}
	c = newClient(t, Config{}, start(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data: nonsense\n\n") }))
	c.patience = time.Millisecond
	if err := c.Events(t.Context(), "p", 3, func(api.Event) error { return nil }); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("%v", err)
	}
}

func TestAllStopsAtAnError(t *testing.T) {
	pages := 0
	list := func(l List) (api.Page[int], error) {
		if pages++; pages == 3 {
			return api.Page[int]{}, errs.New(errs.Unavailable, "gone")
		}
		return api.Page[int]{Items: []int{pages, pages}, NextCursor: "x"}, nil
	}
	n := 0
	var last error
	for _, err := range All(list) {
		n++
		last = err
	}
	if n != 5 || errs.CodeOf(last) != errs.Unavailable {
		t.Errorf("%d items, %v", n, last)
	}
	pages = 0
	for range All(list) {
		break
	}
	if pages != 1 {
		t.Errorf("%d parts for one item", pages)
	}
}
