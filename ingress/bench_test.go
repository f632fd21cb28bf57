package ingress

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"kontiki/fsm"
)

// silent is a Local that answers nothing, so that a benchmark measures the way there.
type silent struct{}

func (silent) ServeRelease(http.ResponseWriter, *http.Request, string, string) error { return nil }

func BenchmarkToThisNode(b *testing.B) {
	w := newWorld(b, "n1", "n2", "n3")
	w.deploy("shop", fsm.PhaseActive, "n1", "n2", "n3")
	h := New(Config{NodeID: "n1", States: w.fsm, Local: silent{}}).Handler()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = shop
	r.Header.Set("Accept", "*/*")
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func BenchmarkResolve(b *testing.B) {
	w := newWorld(b, "n1", "n2", "n3")
	w.deploy("shop", fsm.PhaseActive, "n1", "n2", "n3")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Resolve(w.fsm.State(), shop); !ok {
			b.Fatal("leads nowhere")
		}
	}
}
