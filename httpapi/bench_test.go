package httpapi_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontiki/fsm"
	"kontiki/httpapi"
)

// BenchmarkRead compares a GET of one deployment with a bare net/http handler that writes the same body: over
// connections as users have them, in turns, so that both meet the same machine; and as a function call, which leaves
// out what the network costs both.
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
	own := newHandler(g.replicas[0])
	b.Run("http", func(b *testing.B) {
		urls := [2]string{listen(b, bare) + path, listen(b, own) + path}
		var spent [2]time.Duration
		const turn = 500
		n := 0
		for b.Loop() {
			for i, url := range urls {
				spent[i] += fetch(b, url, turn)
			}
			n += turn
		}
		b.ReportMetric(float64(spent[0].Nanoseconds())/float64(n), "bare-ns/op")
		b.ReportMetric(float64(spent[1].Nanoseconds())/float64(n), "api-ns/op")
		b.ReportMetric(float64(spent[0])/float64(spent[1]), "of-bare")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("call/bare", func(b *testing.B) { called(b, bare, path) })
	b.Run("call/api", func(b *testing.B) { called(b, own, path) })
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

func listen(b *testing.B, h http.Handler) string {
	b.Helper()
	server := httptest.NewServer(h)
	b.Cleanup(server.Close)
	return server.URL
}

var readers = &http.Transport{MaxIdleConnsPerHost: 64}

// fetch gets the URL n times, by eight readers, and gives how long that took.
func fetch(b *testing.B, url string, n int) time.Duration {
	began := time.Now()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			req := request(b, url)
			for left.Add(-1) >= 0 {
				res, err := readers.RoundTrip(req)
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
	wg.Wait()
	return time.Since(began)
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
