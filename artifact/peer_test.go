package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"kontiki/errs"
	"kontiki/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted serves a store and counts requests by method.
func counted(t *testing.T, s *Store) (string, map[string]int) {
	t.Helper()
	seen := map[string]int{}
	h := Handler(s)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen[r.Method]++
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, seen
}

func TestPushSendsOnlyWhatIsMissing(t *testing.T) {
	from, to := openStore(t), openStore(t)
	url, seen := counted(t, to)
	ref := mustPut(t, from, strings.Repeat("content ", 100_000))
	for range 2 {
		if err := from.Push(t.Context(), http.DefaultClient, url, ref.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Verify(t.Context(), ref.Digest); err != nil {
		t.Fatal(err)
	}
	if seen["PUT"] != 1 || seen["HEAD"] != 2 {
		t.Fatalf("requests %v", seen)
	}
	wantCode(t, from.Push(t.Context(), http.DefaultClient, url, digestOf("none")), errs.NotFound)
}

func TestPushReplacesATruncatedBlob(t *testing.T) {
	from, to := openStore(t), openStore(t)
	url, _ := counted(t, to)
	ref := mustPut(t, from, "whole")
	mustPut(t, to, "whole")
	path, err := to.path(ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 2); err != nil {
		t.Fatal(err)
	}
	if err := from.Push(t.Context(), http.DefaultClient, url, ref.Digest); err != nil {
		t.Fatal(err)
	}
	if err := to.Verify(t.Context(), ref.Digest); err != nil {
		t.Fatal(err)
	}
}

func TestFetch(t *testing.T) {
	from, to := openStore(t), openStore(t)
	url, seen := counted(t, from)
	ref := mustPut(t, from, "content")
	for range 2 {
		if got, err := to.Fetch(t.Context(), http.DefaultClient, url, ref.Digest); err != nil || got != ref {
			t.Fatalf("%+v %v", got, err)
		}
	}
	if seen["GET"] != 1 {
		t.Fatalf("requests %v", seen)
	}
	_, err := to.Fetch(t.Context(), http.DefaultClient, url, digestOf("none"))
	wantCode(t, err, errs.NotFound)
	_, err = to.Fetch(t.Context(), http.DefaultClient, url, "md5:1")
	wantCode(t, err, errs.Invalid)
}

func TestFetchRefusesWhatIsNotTheContent(t *testing.T) {
	whole := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		code  errs.Code
	}{
		"other content": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "lies") }, errs.Digest},
		"cut short": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5000")
			_, _ = io.WriteString(w, whole[:4000])
		}, errs.Unavailable},
		"no form": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", 500) }, errs.Unavailable},
		"coded":   {func(w http.ResponseWriter, _ *http.Request) { writeError(w, errs.New(errs.DiskFull, "full")) }, errs.DiskFull},
	} {
		s := openStore(t)
		server := httptest.NewServer(c.serve)
		_, err := s.Fetch(t.Context(), server.Client(), server.URL, digestOf(whole))
		if errs.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
		wantNoTemps(t, s)
	}
}

func TestInjectedFaultsBetweenNodes(t *testing.T) {
	from, to := openStore(t), openStore(t)
	fromURL, _ := counted(t, from)
	toURL, _ := counted(t, to)
	ref := mustPut(t, from, "content")
	for point, act := range map[string]func() error{
		"artifact.push.before":   func() error { return from.Push(t.Context(), http.DefaultClient, toURL, ref.Digest) },
		"artifact.push.after":    func() error { return from.Push(t.Context(), http.DefaultClient, toURL, ref.Digest) },
		"artifact.fetch.before":  func() error { _, err := to.Fetch(t.Context(), http.DefaultClient, fromURL, ref.Digest); return err },
		"artifact.fetch.after":   func() error { _, err := to.Fetch(t.Context(), http.DefaultClient, fromURL, ref.Digest); return err },
		"artifact.remove.before": func() error { return to.Remove(ref.Digest) },
		"artifact.remove.after":  func() error { return to.Remove(ref.Digest) },
	} {
		if err := to.Remove(ref.Digest); err != nil {
			t.Fatal(err)
		}
		if err := fault.Arm(point+"=error", t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if err := act(); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("%s did not fire: %v", point, err)
		}
		if err := fault.Arm("", ""); err != nil {
			t.Fatal(err)
		}
		if err := act(); err != nil {
			t.Errorf("again after %s: %v", point, err)
		}
	}
}

func TestUnreachableNode(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	s := openStore(t)
	_, err := s.Fetch(t.Context(), http.DefaultClient, server.URL, digestOf("x"))
	wantCode(t, err, errs.Unavailable)
	ref := mustPut(t, s, "x")
	wantCode(t, s.Push(t.Context(), http.DefaultClient, server.URL, ref.Digest), errs.Unavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Push(ctx, http.DefaultClient, server.URL, ref.Digest); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestHandlerRefuses(t *testing.T) {
	s := openStore(t)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/blobs/" + digestOf("x"), "", 404},
		{"HEAD", "/blobs/" + digestOf("x"), "", 404},
		{"GET", "/blobs/sha256:zz", "", 400},
		{"PUT", "/blobs/sha256:..%2f..%2fx", "x", 400},
		{"PUT", "/blobs/" + digestOf("x"), "y", 422},
		{"GET", "/other", "", 404},
		{"DELETE", "/blobs/" + digestOf("x"), "", 405},
	} {
		w := httptest.NewRecorder()
		Handler(s).ServeHTTP(w, httptest.NewRequest(c.method, c.path, bytes.NewReader([]byte(c.body))))
		if w.Code != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if refs, err := s.List(); err != nil || len(refs) != 0 {
		t.Fatalf("something was stored: %v %v", refs, err)
	}
}
