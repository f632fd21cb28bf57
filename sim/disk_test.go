package sim

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"kontiki/agent"
	"kontiki/errs"
	"kontiki/fsm"
)

// disk is what one node has stored and what its engine runs: it outlives the node's process. Every operation takes a
// random time, fails now and then, and can be interrupted by the end of its process before, in or after its effect.
type disk struct {
	mu       sync.Mutex
	rng      *rand.Rand
	blobs    map[string][]byte
	releases map[[2]string]bool // project, deployment → complete
	current  map[string]string
	webroots map[string]bool
	servers  map[string]bool
	calm     bool // nothing fails any more
}

func newDisk(rng *rand.Rand) *disk {
	return &disk{rng: rng, blobs: map[string][]byte{}, releases: map[[2]string]bool{}, current: map[string]string{}, webroots: map[string]bool{},
		servers: map[string]bool{}}
}

// do takes its time, then has the effect.
func (d *disk) do(ctx context.Context, effect func() error) error {
	d.mu.Lock()
	took, fails := time.Duration(1+d.rng.IntN(200))*time.Millisecond, d.rng.IntN(50) == 0 && !d.calm
	if d.rng.IntN(20) == 0 {
		took = time.Duration(d.rng.IntN(6000)) * time.Millisecond
	}
	d.mu.Unlock()
	pause(ctx, took)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("interrupted: %w", err)
	}
	if fails {
		return errs.New(errs.DiskFull, "no room")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return effect()
}

// Manifest implements agent.Sites.
func (d *disk) Manifest(ctx context.Context, _ *os.File, _ string) (agent.Manifest, error) {
	return agent.Manifest{Encoded: []byte("manifest"), Files: 1, Bytes: 1}, d.do(ctx, func() error {
		if d.rng.IntN(30) == 0 && !d.calm {
			return errs.New(errs.InvalidArchive, "the archive is damaged")
		}
		return nil
	})
}

// EnsureRelease implements agent.Sites: a release is there in part first, and again when it is not whole.
func (d *disk) EnsureRelease(ctx context.Context, dep *fsm.Deployment, _, _ *os.File) error {
	key := [2]string{dep.Project, dep.ID}
	for _, complete := range []bool{false, true} {
		if err := d.do(ctx, func() error { d.releases[key] = d.releases[key] || complete; return nil }); err != nil {
			return err
		}
	}
	return nil
}

// EnsureWebroot implements agent.Sites.
func (d *disk) EnsureWebroot(ctx context.Context, project string) error {
	return d.do(ctx, func() error { d.webroots[project] = true; return nil })
}

// EnsureCurrent implements agent.Sites.
func (d *disk) EnsureCurrent(ctx context.Context, project, deployment string) error {
	return d.do(ctx, func() error {
		if !d.releases[[2]string{project, deployment}] {
			return errs.New(errs.NotFound, "release %s is not here", deployment)
		}
		d.current[project] = deployment
		return nil
	})
}

// Prune implements agent.Sites; as the real one it does not remove what current names, unless all goes.
func (d *disk) Prune(ctx context.Context, project string, keep func(string) bool) error {
	return d.do(ctx, func() error {
		var gone [][2]string
		kept := 0
		for key := range d.releases {
			switch {
			case key[0] != project:
			case keep(key[1]):
				kept++
			default:
				gone = append(gone, key)
			}
		}
		if kept == 0 {
			delete(d.current, project)
			delete(d.webroots, project)
		}
		for _, key := range gone {
			if d.current[project] == key[1] {
				return errs.New(errs.Conflict, "%s is the current one", key[1])
			}
			delete(d.releases, key)
		}
		return nil
	})
}

// EnsureServer implements agent.Engine.
func (d *disk) EnsureServer(ctx context.Context, project string, _ fsm.Health) (string, error) {
	return "sim", d.do(ctx, func() error { d.servers[project] = true; return nil })
}

// RemoveServer implements agent.Engine.
func (d *disk) RemoveServer(ctx context.Context, project string) error {
	return d.do(ctx, func() error { delete(d.servers, project); return nil })
}

// Working implements agent.Engine.
func (d *disk) Working(ctx context.Context) (works func(string) bool, err error) {
	err = d.do(ctx, func() error {
		running := maps.Clone(d.servers)
		works = func(project string) bool { return running[project] }
		return nil
	})
	return works, err
}

// Inspect implements agent.Inspector.
func (d *disk) Inspect(ctx context.Context, project, deployment string) (h agent.Holding, err error) {
	err = d.do(ctx, func() error {
		h = agent.Holding{Project: project, Deployment: deployment, Release: d.releases[[2]string{project, deployment}],
			Current: d.current[project] == deployment, Webroot: d.webroots[project]}
		return nil
	})
	return h, err
}

// Routed implements agent.Prober.
func (d *disk) Routed(ctx context.Context, _ *fsm.Deployment) error {
	return d.do(ctx, func() error { return nil })
}

// Probe implements agent.Prober.
func (d *disk) Probe(ctx context.Context, dep *fsm.Deployment) error {
	return d.do(ctx, func() error {
		if !d.releases[[2]string{dep.Project, dep.ID}] || !d.servers[dep.Project] || !d.webroots[dep.Project] {
			return errs.New(errs.Unhealthy, "deployment %s is not served", dep.ID)
		}
		return nil
	})
}

// Create implements agent.Logs.
func (d *disk) Create(string, fsm.Phase, int) (io.WriteCloser, error) {
	return nopCloser{io.Discard}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// serves reports whether the release is whole and its server runs.
func (d *disk) serves(dep *fsm.Deployment) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.releases[[2]string{dep.Project, dep.ID}] && d.servers[dep.Project]
}

func (d *disk) has(digest string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.blobs[digest] != nil
}

func (d *disk) put(digest string, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blobs[digest] = b
}

// ServeHTTP gives blobs to other nodes and takes them.
func (d *disk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	digest := strings.TrimPrefix(r.URL.Path, "/blobs/")
	if r.Method == http.MethodPut {
		b, err := io.ReadAll(r.Body)
		if err != nil || digestOf(b) != digest {
			http.Error(w, "another digest", http.StatusBadRequest)
			return
		}
		d.put(digest, b)
		return
	}
	d.mu.Lock()
	b := d.blobs[digest]
	d.mu.Unlock()
	if b == nil {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(b) // who asked is gone when this fails
}
