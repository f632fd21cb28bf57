package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"kontiki/errs"
)

var removeForced = image.RemoveOptions{Force: true}

// engine is an HTTP server in place of an engine; it answers pings itself and counts what would change something.
type engine struct {
	*httptest.Server
	handle  http.HandlerFunc
	changes atomic.Int32
}

func newEngine(t *testing.T, api string, handle http.HandlerFunc) *engine {
	f := &engine{handle: handle}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/_ping") {
			w.Header().Set("Api-Version", api)
			return
		}
		if r.Method != http.MethodGet {
			f.changes.Add(1)
		}
		f.handle(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *engine) host() string { return "tcp://" + f.Listener.Addr().String() }

// openAt gives an engine that talks to the fake one.
func openAt(t *testing.T, f *engine) *Engine {
	t.Helper()
	bin, err := testBinary()
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), Config{Host: f.host(), ClusterID: "c", NodeID: "n1", DataDir: t.TempDir(), Binary: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// everything runs each operation and gives its error.
func everything(ctx context.Context, e *Engine) map[string]error {
	out := map[string]error{}
	_, out["ensure"] = e.EnsureServer(ctx, "shop", health)
	out["remove"] = e.RemoveServer(ctx, "shop")
	_, out["list"] = e.Servers(ctx)
	_, out["look"] = e.Working(ctx)
	_, out["serve"] = e.ask("shop", "r1")
	return out
}

func TestAnEngineThatHangs(t *testing.T) {
	t.Parallel()
	free := make(chan struct{})
	f := newEngine(t, "1.41", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-free:
		}
	})
	defer close(free)
	e := openAt(t, f)
	e.limits.call = 50 * time.Millisecond
	for what, err := range everything(t.Context(), e) {
		if errs.CodeOf(err) != errs.DockerTimeout {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := f.changes.Load(); n != 0 {
		t.Errorf("%d changes were asked for", n)
	}
}

func TestAnEngineThatFails(t *testing.T) {
	t.Parallel()
	f := newEngine(t, "1.41", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"message":"broken inside"}`)
	})
	for what, err := range everything(t.Context(), openAt(t, f)) {
		if errs.CodeOf(err) != errs.DockerError || !strings.Contains(err.Error(), "broken inside") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := f.changes.Load(); n != 0 {
		t.Errorf("%d changes were asked for: a failure is not an empty answer", n)
	}
}

func TestAFullDiskIsSaidSo(t *testing.T) {
	t.Parallel()
	f := newEngine(t, "1.41", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"message":"write /var/lib/docker/x: no space left on device"}`)
	})
	if _, err := openAt(t, f).EnsureServer(t.Context(), "shop", health); errs.CodeOf(err) != errs.DiskFull {
		t.Error(err)
	}
}

func TestAnEngineThatIgnoresTheFilter(t *testing.T) {
	t.Parallel()
	foreign := []container.Summary{{ID: "foreign", Names: []string{"/kontiki-shop-static-n1-c"}, State: "running",
		Labels: map[string]string{labelManaged: "true", labelProject: "shop", labelRole: "static", labelNode: "n1", labelCluster: "other"}}}
	f := newEngine(t, "1.41", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(foreign)
	})
	e := openAt(t, f)
	if err := e.RemoveServer(t.Context(), "shop"); err != nil {
		t.Error(err)
	}
	if infos, err := e.Servers(t.Context()); err != nil || len(infos) != 0 {
		t.Errorf("servers: %v, %v", infos, err)
	}
	if n := f.changes.Load(); n != 0 {
		t.Errorf("%d changes were asked for", n)
	}
}

func TestAContainerThatSomebodyElseRemoves(t *testing.T) {
	t.Parallel()
	var looks atomic.Int32
	f := newEngine(t, "1.41", nil)
	e := openAt(t, f)
	f.handle = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			_ = json.NewEncoder(w).Encode([]container.Summary{{ID: "x", Labels: e.labels("shop")}})
		case strings.HasSuffix(r.URL.Path, "/stop"):
			w.WriteHeader(http.StatusNoContent)
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"message":"removal of container x is already in progress"}`)
		case looks.Add(1) < 3:
			fmt.Fprint(w, `{"Id":"x","State":{"Status":"removing"},"Config":{},"NetworkSettings":{}}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"no such container"}`)
		}
	}
	if err := e.RemoveServer(t.Context(), "shop"); err != nil || looks.Load() != 3 {
		t.Errorf("looked %d times, %v", looks.Load(), err)
	}
	looks.Store(-1 << 30)
	e.limits.call = 300 * time.Millisecond
	if err := e.RemoveServer(t.Context(), "shop"); errs.CodeOf(err) != errs.DockerTimeout {
		t.Errorf("it stays: %v", err)
	}
}

// realEngine passes requests on to the real engine.
func realEngine(t *testing.T) *httputil.ReverseProxy {
	t.Helper()
	at, err := client.ParseHostURL(client.DefaultDockerHost)
	if host := os.Getenv(client.EnvOverrideHost); host != "" {
		at, err = client.ParseHostURL(host)
	}
	if err != nil {
		t.Fatal(err)
	}
	addr := at.Host
	if at.Scheme == "unix" {
		addr = at.Host + at.Path
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, at.Scheme, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})
	p.Transport = transport
	return p
}

func TestAReplyThatIsLostMakesNoSecondServer(t *testing.T) {
	t.Parallel()
	real := realEngine(t)
	for _, path := range []string{"/images/create", "/containers/create", "/start", "/stop", "/rename", "DELETE"} {
		t.Run(strings.Trim(path, "/"), func(t *testing.T) {
			t.Parallel()
			var lost atomic.Int32
			f := newEngine(t, "1.41", func(w http.ResponseWriter, r *http.Request) {
				hit := r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, path) || r.Method == path
				if hit && lost.Add(1) == 1 {
					real.ServeHTTP(httptest.NewRecorder(), r)
					panic(http.ErrAbortHandler)
				}
				real.ServeHTTP(w, r)
			})
			e := open(t, func(c *Config) { c.Host = f.host() })
			e.release(t, "shop", "r1")
			if path == "/images/create" {
				if err := e.dropImage(t); err != nil {
					t.Fatal(err)
				}
			}
			other := health
			other.Interval *= 2
			for i, h := range []int{0, 1, 1} { // made, replaced, left alone
				spec := health
				if h == 1 {
					spec = other
				}
				if _, err := e.EnsureServer(t.Context(), "shop", spec); err != nil {
					if _, err = e.EnsureServer(t.Context(), "shop", spec); err != nil {
						t.Fatalf("ensure %d: %v", i, err)
					}
				}
				e.only(t)
			}
			if rec, err := e.ask("shop", "r1"); err != nil || rec.Body.String() != "r1" {
				t.Errorf("answered %q, %v", rec.Body, err)
			}
			if lost.Load() == 0 {
				t.Error("no reply was lost")
			}
		})
	}
}

func TestAServerGoesOnWhileTheEngineHangs(t *testing.T) {
	t.Parallel()
	real := realEngine(t)
	var hangs atomic.Bool
	f := newEngine(t, "1.41", func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-r.Context().Done()
			return
		}
		real.ServeHTTP(w, r)
	})
	e := open(t, func(c *Config) { c.Host = f.host() })
	e.release(t, "shop", "r1")
	e.ensure(t, "shop")
	hangs.Store(true)
	defer hangs.Store(false)
	if rec, err := e.ask("shop", "r1"); err != nil || rec.Body.String() != "r1" {
		t.Errorf("answered %q, %v", rec.Body, err)
	}
}

func TestAvailable(t *testing.T) {
	t.Parallel()
	if err := Available(t.Context(), ""); err != nil {
		t.Errorf("these tests need a Docker engine, which scripts/setup starts: %v", err)
	}
	gone := newEngine(t, "1.41", nil)
	host := gone.host()
	gone.Close()
	if err := Available(t.Context(), host); errs.CodeOf(err) != errs.DockerError || !strings.Contains(err.Error(), "systemctl start docker") {
		t.Errorf("no engine: %v", err)
	}
	old := newEngine(t, "1.40", nil)
	if err := Available(t.Context(), old.host()); errs.CodeOf(err) != errs.DockerError || !strings.Contains(err.Error(), "1.40") {
		t.Errorf("an old engine: %v", err)
	}
	if err := Available(t.Context(), "nonsense"); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a bad address: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Available(ctx, old.host()); err == nil {
		t.Error("a context that has ended was no reason")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]Config{
		"needs cluster ID": {NodeID: "n1", DataDir: dir},
		"no Linux program": {ClusterID: "c", NodeID: "n1", DataDir: dir, Binary: script},
		"CGO_ENABLED=0":    {ClusterID: "c", NodeID: "n1", DataDir: dir, Binary: shell},
		"no such file":     {ClusterID: "c", NodeID: "n1", DataDir: dir, Binary: filepath.Join(dir, "none")},
	} {
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have: %v", want, err)
		}
	}
}

func TestTheImageHoldsTheBinaryAlone(t *testing.T) {
	t.Parallel()
	bin, err := testBinary()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pack(&b, bin); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&b)
	h, err := r.Next()
	if err != nil || h.Name != "kontiki" || h.Mode != 0o755 {
		t.Fatalf("first is %+v, %v", h, err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(bin); err != nil || !bytes.Equal(got, want) {
		t.Errorf("it is another program, %v", err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("then comes %v", err)
	}
}

func TestNamesAndLabelsAreThoseOfOneNode(t *testing.T) {
	t.Parallel()
	e := &Engine{cfg: Config{ClusterID: "01J0000000ABCDEF", NodeID: "n1"}}
	if got := e.name("shop"); got != "kontiki-shop-static-n1-abcdef" {
		t.Errorf("name is %s", got)
	}
	own := e.labels("shop")
	if !e.owned(own, "shop") || !e.owned(own, "") || e.owned(own, "blog") || e.owned(nil, "") {
		t.Error("ownership is not told by the labels")
	}
	for k := range own {
		other := e.labels("shop")
		other[k] = "x"
		if k != labelProject && e.owned(other, "") || e.owned(other, "shop") {
			t.Errorf("owned with another %s", k)
		}
	}
}
