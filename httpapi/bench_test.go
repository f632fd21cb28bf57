package httpapi_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"kontiki/fsm"
	"kontiki/httpapi"
)

// BenchmarkRead compares a GET of one deployment with a bare net/http handler that writes the same body: over
// connections as users have them, and as a function call, which leaves out what the network costs both.
func BenchmarkRead(b *testing.B) {
	g := newGroup(b, 1, nil)
	c := g.client(b, adminSecret, 0)
	d := deploy(b, c, "hello", "x")
	g.bring(b, d.ID)
	path := "/api/deployments/" + d.ID
	body := []byte(read(b, g.ask(b, "GET", path, "")))
	bare := http.NewServeMux()
	bare.HandleFunc("GET /api/deployments/{id}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})
	for _, row := range []struct {
		name    string
		handler http.Handler
	}{{"bare", bare}, {"api", newHandler(g.replicas[0])}} {
		b.Run("http/"+row.name, func(b *testing.B) { overHTTP(b, row.handler, path) })
		b.Run("call/"+row.name, func(b *testing.B) { called(b, row.handler, path) })
	}
}

// newHandler is the API without the debug log of the tests.
func newHandler(r *replica) http.Handler {
	return httpapi.New(httpapi.Deps{Replica: r, Uploads: r, Members: r, Logs: r, Node: r, Place: place})
}

func request(b *testing.B, url string) *http.Request {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminSecret)
	return req
}

func overHTTP(b *testing.B, h http.Handler, path string) {
	server := &http.Server{Handler: h}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		req := request(b, "http://"+l.Addr().String()+path)
		for pb.Next() {
			res, err := transport.RoundTrip(req)
			if err != nil {
				b.Error(err)
				return
			}
			if n, err := io.Copy(io.Discard, res.Body); err != nil || n == 0 || res.StatusCode != http.StatusOK {
				b.Errorf("%d bytes, %v, status %d", n, err, res.StatusCode)
			}
			_ = res.Body.Close()
		}
	})
}

func called(b *testing.B, h http.Handler, path string) {
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request(b, path))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}

// BenchmarkWrite is a change of a project's metadata as far as this package is concerned: the log is in memory.
func BenchmarkWrite(b *testing.B) {
	g := newGroup(b, 1, nil)
	g.must(b, fsm.ProjectCreate{Name: "hello"})
	h := newHandler(g.replicas[0])
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPatch, "/api/projects/hello", strings.NewReader(`{"metadata":{"key":"value"}}`))
		req.Header.Set("Authorization", "Bearer "+adminSecret)
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
