package docker

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"go.uber.org/goleak"

	"kontiki/fsm"
)

//go:embed testdata/server.go.txt
var serverSource []byte

// testBinary is the server program, built once.
var testBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kontiki-docker-test")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), serverSource, 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", "server", "main.go")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the test's server: %w: %s", err, out)
	}
	return filepath.Join(dir, "server"), nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if bin, err := testBinary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// open gives an engine on the real Docker, of a cluster of its own; what it leaves behind is removed after the test.
func open(t *testing.T, edit ...func(*Config)) *Engine {
	t.Helper()
	cluster := fsm.NewID()
	cfg := Config{ClusterID: cluster, NodeID: "n1", DataDir: t.TempDir(), Binary: ownBinary(t, cluster), Command: []string{"serve"},
		Check: []string{"check"}, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range edit {
		f(&cfg)
	}
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("these tests need a Docker engine, which scripts/setup starts: %v", err)
	}
	e.limits.grace = 2 * time.Second
	t.Cleanup(func() { sweep(t, cfg.ClusterID, e.binary.tag()) })
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// ownBinary gives a copy of the server program whose image no other test has, because it ends in the mark.
func ownBinary(t *testing.T, mark string) string {
	t.Helper()
	bin, err := testBinary()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "kontiki")
	if err := os.WriteFile(own, append(b, mark...), 0o700); err != nil {
		t.Fatal(err)
	}
	return own
}

// sweep removes what a test's cluster has on the real engine.
func sweep(t *testing.T, cluster, tag string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	api, err := connect(ctx, "", 10*time.Second)
	if err != nil {
		t.Error(err)
		return
	}
	defer api.Close()
	e := &Engine{cfg: Config{ClusterID: cluster, NodeID: "n1"}, api: api}
	found, err := api.ContainerList(ctx, container.ListOptions{All: true, Filters: e.filter("")})
	if err != nil {
		t.Error(err)
	}
	for _, c := range found {
		if err := api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	if _, err := api.ImageRemove(ctx, tag, image.RemoveOptions{Force: true}); err != nil && !cerrdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// release writes a release with one page, which holds its ID.
func (e *Engine) release(t *testing.T, project, id string) {
	t.Helper()
	dir := filepath.Join(e.cfg.DataDir, "static", project, "releases", id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(id), 0o644); err != nil {
		t.Fatal(err)
	}
}

var health = fsm.DefaultSpec().Health

func (e *Engine) ensure(t *testing.T, project string) string {
	t.Helper()
	endpoint, err := e.EnsureServer(t.Context(), project, health)
	if err != nil {
		t.Fatal(err)
	}
	return endpoint
}

// servers gives what the engine has of the cluster, with every container of it looked at.
func (e *Engine) servers(t *testing.T) []container.InspectResponse {
	t.Helper()
	infos, err := e.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []container.InspectResponse
	for _, i := range infos {
		c, err := e.inspect(t.Context(), i.Container)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// only gives the one server there must be.
func (e *Engine) only(t *testing.T) container.InspectResponse {
	t.Helper()
	all := e.servers(t)
	if len(all) != 1 {
		t.Fatalf("there are %d servers, want 1", len(all))
	}
	return all[0]
}

// ask has the engine serve a request for the release.
func (e *Engine) ask(project, deployment string) (*httptest.ResponseRecorder, error) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/a//b%2Fc?x=1;y=%zz", nil)
	r.Host = "shop.example"
	r.Header.Set("X-Forwarded-For", "10.1.2.3")
	err := e.ServeRelease(rec, r, project, deployment)
	return rec, err
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("still not: %s", what)
		case <-tick.C:
		}
	}
}
