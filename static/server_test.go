package static

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get asks for a release of project p; headers are name, value pairs.
func get(s *Server, method, target, deployment string, headers ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://p.example"+target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if err := s.ServeRelease(w, r, "p", deployment); err != nil {
		unavailable(w, "p", err)
	}
	return w
}

func served(t *testing.T, f files) *Server {
	t.Helper()
	s := openSites(t, t.TempDir())
	if err := s.EnsureRelease(t.Context(), "p", "D", f.manifest(), f.extract); err != nil {
		t.Fatal(err)
	}
	return s.Server()
}

func TestServeRelease(t *testing.T) {
	s := served(t, files{
		"index.html": "home", "docs/index.html": "docs", "docs/a b.txt": "text", "empty/x.css": "css", "app.JS": "js",
		"LICENSE": "plain words", "page": "<!doctype html><p>", "404.html": "lost", "a:b/index.html": "odd",
	})
	for _, c := range []struct {
		method, target, body, header string
		status                       int
	}{
		{"GET", "/", "home", "Content-Type: text/html; charset=utf-8", 200},
		{"GET", "/index.html", "home", "X-Content-Type-Options: nosniff", 200},
		{"GET", "/docs/", "docs", "Content-Length: 4", 200},
		{"GET", "/docs?x=1", "", "Location: /docs/?x=1", 301},
		{"GET", "//docs", "", "Location: /docs/", 301},
		{"GET", "/a:b", "", "Location: /a:b/", 301},
		{"GET", "/docs/a%20b.txt", "text", "Content-Type: text/plain; charset=utf-8", 200},
		{"GET", "/docs/a%20b.txt/", "lost", "", 404},
		{"GET", "/app.JS", "js", "Content-Type: text/javascript; charset=utf-8", 200},
		{"GET", "/LICENSE", "plain words", "Content-Type: text/plain; charset=utf-8", 200},
		{"GET", "/page", "<!doctype html><p>", "Content-Type: text/html; charset=utf-8", 200},
		{"GET", "/empty/", "lost", "Content-Type: text/html; charset=utf-8", 404},
		{"GET", "/empty", "lost", "", 404},
		{"GET", "/none", "lost", "Content-Length: 4", 404},
		{"HEAD", "/none", "", "Content-Length: 4", 404},
		{"GET", "/index.html/x", "lost", "", 404},
		{"GET", "/../../../../etc/passwd", "lost", "", 404},
		{"GET", "/..%2f..%2fetc/passwd", "lost", "", 404},
		{"GET", "/a%00b", "lost", "", 404},
		{"GET", "/" + strings.Repeat("x", 5000), "lost", "", 404},
		{"HEAD", "/", "", "Content-Length: 4", 200},
		{"POST", "/", "405 method not allowed\n", "Allow: GET, HEAD", 405},
		{"DELETE", "/none", "405 method not allowed\n", "Allow: GET, HEAD", 405},
	} {
		w := get(s, c.method, c.target, "D")
		name, value, _ := strings.Cut(c.header, ": ")
		body := w.Body.String()
		if w.Code != c.status || body != c.body && c.status != 301 || w.Header().Get(name) != value {
			t.Errorf("%s %.40s: %d %q %v", c.method, c.target, w.Code, body, w.Header())
		}
		if w.Header().Get(ReleaseHeader) != "D" {
			t.Errorf("%s %.40s: the release is not named", c.method, c.target)
		}
	}
}

func TestConditionalAndRangeRequests(t *testing.T) {
	s := served(t, files{"index.html": "0123456789"})
	etag := get(s, "GET", "/", "D").Header().Get("ETag")
	if !strings.HasPrefix(etag, `"D`) {
		t.Fatalf("ETag %q", etag)
	}
	for _, c := range []struct {
		headers []string
		status  int
		body    string
	}{
		{[]string{"If-None-Match", etag}, 304, ""},
		{[]string{"If-None-Match", `"other"`}, 200, "0123456789"},
		{[]string{"If-Match", `"other"`}, 412, ""},
		{[]string{"Range", "bytes=2-4"}, 206, "234"},
		{[]string{"Range", "bytes=-2"}, 206, "89"},
		{[]string{"Range", "bytes=99-"}, 416, "invalid range: failed to overlap\n"},
		{[]string{"Range", "bytes=2-4", "If-Range", etag}, 206, "234"},
		{[]string{"Range", "bytes=2-4", "If-Range", `"other"`}, 200, "0123456789"},
	} {
		w := get(s, "GET", "/", "D", c.headers...)
		if w.Code != c.status || w.Body.String() != c.body || w.Header().Get(ReleaseHeader) != "D" {
			t.Errorf("%v: %d %q %v", c.headers, w.Code, w.Body, w.Header())
		}
	}
}

func TestReleasesThatAreNotHere(t *testing.T) {
	s := served(t, files{"index.html": "x"})
	for _, d := range []string{"other", "", "..", "a/b", ".tmp-D-1"} {
		w := get(s, "GET", "/", d)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || w.Header().Get(ReleaseHeader) != "" {
			t.Errorf("%q: %d %v", d, w.Code, w.Header())
		}
	}
	if w := get(s, "GET", "/none", "D"); w.Code != 404 || w.Body.String() != "404 page not found\n" {
		t.Errorf("without a page of its own: %d %q", w.Code, w.Body)
	}
	for _, p := range []string{"none", "..", ""} {
		w := httptest.NewRecorder()
		s.ServeProject(w, httptest.NewRequest("GET", "/", nil), p, false)
		if w.Code != 503 {
			t.Errorf("%q: %d", p, w.Code)
		}
	}
}

func TestServeProject(t *testing.T) {
	sites := openSites(t, t.TempDir())
	activate(t, sites, "p", "D1")
	activate(t, sites, "p", "D2")
	s := NewServer(sites.static)
	defer s.Close()
	for _, c := range []struct {
		pinned string
		trust  bool
		want   string
		status int
	}{
		{"", true, "D2", 200}, {"D1", true, "D1", 200}, {"D1", false, "D2", 200}, {"gone", true, "", 503}, {"../D1", true, "", 503},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set(ReleaseHeader, c.pinned)
		s.ServeProject(w, r, "p", c.trust)
		if w.Code != c.status || w.Header().Get(ReleaseHeader) != c.want || c.want != "" && w.Body.String() != "index of "+c.want {
			t.Errorf("%+v: %d %q", c, w.Code, w.Body)
		}
	}
}

func TestHostileLinksAreNotServed(t *testing.T) {
	old := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // it has a lot to tell here
	defer slog.SetDefault(old)
	outside := t.TempDir()
	secret := files{"index.html": "secret", "releases/D/index.html": "secret"}
	if err := secret.extract(outside); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ link, target string }{
		"file":        {"static/p/releases/D/index.html", outside + "/index.html"},
		"directory":   {"static/p/releases/D/docs", outside},
		"dot dot":     {"static/p/releases/D/docs", "../../../../.."},
		"release":     {"static/p/releases/D", outside},
		"neighbour":   {"static/p/releases/D", "../../other/releases/E"},
		"releases":    {"static/p/releases", outside + "/releases"},
		"project":     {"static/p", outside},
		"current":     {"static/p/current", outside},
		"current up":  {"static/p/current", "releases/../../other/releases/E"},
		"own pipe":    {"static/p/releases/D/index.html", ""},
		"other's dir": {"static/p", "other"},
	} {
		data := t.TempDir()
		sites := openSites(t, data)
		activate(t, sites, "other", "E")
		activate(t, sites, "p", "D")
		get(sites.Server(), "GET", "/", "D") // so that the directory is held open already
		link := filepath.Join(data, c.link)
		if err := os.RemoveAll(link); err != nil {
			t.Fatal(err)
		}
		make := func() error { return os.Symlink(c.target, link) }
		if c.target == "" {
			make = func() error { return syscall.Mkfifo(link, 0o644) }
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"/", "/docs/", "/docs/index.html", "/docs/etc/passwd"} {
			w := get(sites.Server(), "GET", target, "D")
			if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "of E") || strings.Contains(w.Body.String(), "root:") {
				t.Errorf("%s: ServeRelease %s gave %q", name, target, w.Body)
			}
			w = httptest.NewRecorder()
			sites.Server().ServeProject(w, httptest.NewRequest("GET", target, nil), "p", false)
			if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "of E") {
				t.Errorf("%s: ServeProject %s gave %q", name, target, w.Body)
			}
		}
	}
}

// Readers beside a node that flips, repairs and removes find the old release or the new one, whole, and never nothing.
func TestFlipsUnderConcurrentReaders(t *testing.T) {
	sites := openSites(t, t.TempDir())
	activate(t, sites, "p", "D0")
	elsewhere := NewServer(sites.static) // as the project's container serves
	defer elsewhere.Close()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	reads := make([]int, 4)
	for i, s := range []*Server{sites.Server(), sites.Server(), elsewhere, elsewhere} {
		wg.Go(func() {
			for ; ctx.Err() == nil; reads[i]++ {
				if err := readOnce(s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(sites.www, "p", "index.html")); err != nil {
				t.Error("through the links:", err)
				return
			}
		}
	})
	for i := 1; i <= 60; i++ {
		activate(t, sites, "p", fmt.Sprintf("D%d", i))
		if i > 2 { // the one before may have readers yet
			if err := sites.RemoveRelease(t.Context(), "p", fmt.Sprintf("D%d", i-3)); err != nil {
				t.Error(err)
			}
		}
	}
	stop()
	wg.Wait()
	for i, n := range reads {
		if n == 0 {
			t.Errorf("reader %d read nothing", i)
		}
	}
}

func readOnce(s *Server) error {
	w := httptest.NewRecorder()
	s.ServeProject(w, httptest.NewRequest("GET", "/a/b.css", nil), "p", false)
	release := w.Header().Get(ReleaseHeader)
	if w.Code != 200 || release == "" || w.Body.String() != "style of "+release {
		return fmt.Errorf("%d %q from %q", w.Code, w.Body, release)
	}
	return nil
}

func TestAReplacedReleaseIsServedAtOnceByAllServers(t *testing.T) {
	sites := openSites(t, t.TempDir())
	activate(t, sites, "p", "D")
	elsewhere := NewServer(sites.static)
	defer elsewhere.Close()
	for _, s := range []*Server{sites.Server(), elsewhere} {
		if err := readOnce(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := sites.RemoveProject(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Server{sites.Server(), elsewhere} {
		if w := get(s, "GET", "/", "D"); w.Code != 503 {
			t.Fatalf("a removed release is served: %d %q", w.Code, w.Body)
		}
	}
	activate(t, sites, "p", "D")
	for _, s := range []*Server{sites.Server(), elsewhere} {
		if err := readOnce(s); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenDirectoriesAreBounded(t *testing.T) {
	sites := openSites(t, t.TempDir())
	ensure(t, sites, "p", "D0")
	held, err := sites.server.roots.acquire(sites.static, filepath.Join(sites.releases("p"), "D0"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxRoots + 20 {
		id := fmt.Sprintf("D%d", i)
		ensure(t, sites, "p", id)
		if w := get(sites.Server(), "GET", "/", id); w.Code != 200 {
			t.Fatalf("%d", w.Code)
		}
	}
	if n := len(sites.server.roots.open); n != maxRoots || sites.server.roots.order.Len() != n {
		t.Fatalf("%d directories are open", n)
	}
	if _, err := held.Stat("index.html"); err != nil || !held.dropped {
		t.Fatal("one in use was closed:", err)
	}
	sites.server.roots.release(held)
	if _, err := held.Stat("index.html"); !errors.Is(err, os.ErrClosed) {
		t.Fatal("it is not closed after its last use:", err)
	}
	sites.Close()
	if n := len(sites.server.roots.open); n != 0 {
		t.Fatalf("%d directories are open after Close", n)
	}
}

// BenchmarkServe compares a request through ServeProject with net/http's own file server on the same files.
func BenchmarkServe(b *testing.B) {
	sites := openSites(b, b.TempDir())
	activate(b, sites, "p", "D")
	plain := http.FileServer(http.Dir(filepath.Join(sites.static, "p", "current")))
	for name, h := range map[string]http.Handler{
		"project": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sites.Server().ServeProject(w, r, "p", true) }),
		"release": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = sites.Server().ServeRelease(w, r, "p", "D") }),
		"stdlib":  plain,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/a/b.css", nil))
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
				_, _ = io.Copy(io.Discard, w.Body)
			}
		})
	}
}
