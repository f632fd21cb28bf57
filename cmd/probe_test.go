package cmd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// site serves pages as an ingress would.
func site(t *testing.T, release string, body func(path string) (int, string)) *process {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, text := body(r.URL.Path)
		w.Header().Set("Kontiki-Release", release)
		w.WriteHeader(code)
		_, _ = w.Write([]byte(text)) // a client that is gone learns nothing
	}))
	t.Cleanup(s.Close)
	return &process{ingress: s.Listener.Addr().String()}
}

func gone(t *testing.T) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return &process{ingress: l.Addr().String()}
}

var twoEditions = [2]edition{
	{name: "first", pages: map[string][]byte{"/": []byte("one")}},
	{name: "second", pages: map[string][]byte{"/": []byte("two")}},
}

func always(code int, body string) func(string) (int, string) {
	return func(string) (int, string) { return code, body }
}

func TestTheProbeJudgesEachAnswer(t *testing.T) {
	first, second := site(t, "R1", always(200, "one")), site(t, "R2", always(200, "two"))
	for _, tt := range []struct {
		name    string
		nodes   []*process
		turns   int
		retried int64
		failure string
	}{
		{"both editions are fine", []*process{first, second}, 2, 0, ""},
		{"a dead node is passed over", []*process{gone(t), first}, 2, 1, ""},
		{"two dead nodes are a failure", []*process{gone(t), gone(t)}, 1, 1, "then on the next node"},
		{"an error is a failure", []*process{site(t, "R1", always(503, "not here"))}, 1, 0, "status 503: not here"},
		{"another body is a failure", []*process{site(t, "R1", always(200, "one and a half"))}, 1, 0, "of no edition"},
		{"a release that changes is a failure", []*process{first, site(t, "R1", always(200, "two"))}, 2, 0, "release R1 gave both editions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProbe("host", tt.nodes, twoEditions)
			defer p.stop()
			for turn := range tt.turns {
				p.request("/", turn)
			}
			if p.made.Load() != int64(tt.turns) || p.retried.Load() != tt.retried {
				t.Errorf("%d made and %d retried, want %d and %d", p.made.Load(), p.retried.Load(), tt.turns, tt.retried)
			}
			failures := strings.Join(p.failed(), "\n")
			if (failures == "") != (tt.failure == "") || !strings.Contains(failures, tt.failure) {
				t.Errorf("the failures are %q, want %q in them", failures, tt.failure)
			}
		})
	}
}

func TestTheProbeAsksUntilItIsStopped(t *testing.T) {
	p := newProbe("host", []*process{site(t, "R1", always(200, "one"))}, twoEditions)
	p.start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := await(ctx, "answers", func(context.Context) (bool, error) { return p.seen[0].Load() > 20, nil }); err != nil {
		t.Fatal(err)
	}
	p.stop()
	made := p.made.Load()
	p.stop()
	if p.made.Load() != made || len(p.failed()) > 0 || p.duration() <= 0 {
		t.Errorf("%d made after %d, failures %v", p.made.Load(), made, p.failed())
	}
}

func TestAwaitTellsTheLastAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	err := await(ctx, "a ship", func(context.Context) (bool, error) {
		if asked++; asked == 2 {
			cancel()
		}
		return false, errors.New("only water")
	})
	if err == nil || !strings.Contains(err.Error(), "waited in vain for a ship") || !strings.Contains(err.Error(), "only water") {
		t.Error(err)
	}
}

func TestEditionsDifferInTheirPagesOnly(t *testing.T) {
	dir := t.TempDir()
	first, err := newEdition(dir, "first")
	if err != nil {
		t.Fatal(err)
	}
	second, err := newEdition(dir, "second")
	if err != nil {
		t.Fatal(err)
	}
	if len(first.files) < 300 || len(first.pages) < 250 || len(first.files) != len(second.files) {
		t.Fatalf("%d and %d files, %d pages", len(first.files), len(second.files), len(first.pages))
	}
	for path, body := range first.files {
		_, page := first.pages[path]
		if same := string(body) == string(second.files[path]); same == page {
			t.Errorf("%s: page %v, the same in both %v", path, page, same)
		}
	}
	if paths := first.paths(); paths[0] != "/" {
		t.Errorf("the first path is %s", paths[0])
	}
}
