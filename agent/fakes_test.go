package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"kontiki/errs"
	"kontiki/fsm"
)

// disk is what a node has outside the agent: it outlives the agents of a test, as a disk does a process. Every call
// goes through the hook first, named as Blobs.Ensure and the like, which may wait or fail in its place.
type disk struct {
	dir string

	mu       sync.Mutex
	hook     func(ctx context.Context, call string) error
	calls    []string
	blobs    map[string]bool
	remote   map[string]bool // blobs other nodes have
	releases map[string]bool // project/deployment
	current  map[string]string
	webroots map[string]bool
	servers  map[string]bool
	logs     map[string]*bytes.Buffer
	held     fsm.Held // when not zero, what Put says
}

func newDisk(t *testing.T) *disk {
	return &disk{dir: t.TempDir(), blobs: map[string]bool{}, remote: map[string]bool{}, releases: map[string]bool{},
		current: map[string]string{}, webroots: map[string]bool{}, servers: map[string]bool{}, logs: map[string]*bytes.Buffer{}}
}

// call notes a call and lets the hook have its say, then runs do alone.
func (d *disk) call(ctx context.Context, name string, do func()) error {
	d.mu.Lock()
	d.calls = append(d.calls, name)
	hook := d.hook
	d.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, name); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	do()
	return nil
}

// set changes or looks at the disk beside the agent, peek gives one entry of one of its maps.
func (d *disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

func peek[V any](d *disk, of map[string]V, key string) V {
	d.mu.Lock()
	defer d.mu.Unlock()
	return of[key]
}

func (d *disk) on(hook func(ctx context.Context, call string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = hook
}

// failing gives the error the first n times the call is made.
func (d *disk) failing(call string, n int64, err error) {
	var made atomic.Int64
	d.on(func(_ context.Context, name string) error {
		if name != call || made.Add(1) > n {
			return nil
		}
		return err
	})
}

func (d *disk) count(call string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.calls {
		if c == call {
			n++
		}
	}
	return n
}

// has lists what is on the disk, sorted: releases, webroots, current links, servers.
func (d *disk) has() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for r := range d.releases {
		all = append(all, "release "+r)
	}
	for p := range d.webroots {
		all = append(all, "webroot "+p)
	}
	for p, dep := range d.current {
		all = append(all, "current "+p+"="+dep)
	}
	for p := range d.servers {
		all = append(all, "server "+p)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Ensure implements Blobs.
func (d *disk) Ensure(ctx context.Context, digest string) (err error) {
	failed := d.call(ctx, "Blobs.Ensure", func() {
		if !d.blobs[digest] && !d.remote[digest] {
			err = errs.New(errs.BlobMissing, "nobody has %s", digest)
			return
		}
		d.blobs[digest] = true
	})
	return errors.Join(failed, err)
}

// Open implements Blobs.
func (d *disk) Open(digest string) (*os.File, error) {
	var there bool
	if err := d.call(context.Background(), "Blobs.Open", func() { there = d.blobs[digest] }); err != nil {
		return nil, err
	}
	if !there {
		return nil, errs.New(errs.NotFound, "no blob %s", digest)
	}
	return os.OpenFile(filepath.Join(d.dir, "blob"), os.O_RDWR|os.O_CREATE, 0o600)
}

// Put implements Blobs.
func (d *disk) Put(ctx context.Context, r io.Reader) (held fsm.Held, err error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return held, err
	}
	err = d.call(ctx, "Blobs.Put", func() {
		d.blobs[digestOf(b)] = true
		if held = d.held; held.Digest == "" {
			held = fsm.Held{Digest: digestOf(b), Size: int64(len(b)), Nodes: []string{"n1"}}
		}
	})
	return held, err
}

// Drop implements Blobs.
func (d *disk) Drop(ctx context.Context, digest string) error {
	return d.call(ctx, "Blobs.Drop", func() { delete(d.blobs, digest) })
}

// Manifest implements Sites.
func (d *disk) Manifest(ctx context.Context, _ *os.File, _ string) (Manifest, error) {
	return Manifest{Encoded: []byte("manifest"), Files: 2, Bytes: 20}, d.call(ctx, "Sites.Manifest", func() {})
}

// EnsureRelease implements Sites.
func (d *disk) EnsureRelease(ctx context.Context, dep *fsm.Deployment, _, _ *os.File) error {
	return d.call(ctx, "Sites.EnsureRelease", func() { d.releases[dep.Project+"/"+dep.ID] = true })
}

// EnsureWebroot implements Sites.
func (d *disk) EnsureWebroot(ctx context.Context, project string) error {
	return d.call(ctx, "Sites.EnsureWebroot", func() { d.webroots[project] = true })
}

// EnsureCurrent implements Sites.
func (d *disk) EnsureCurrent(ctx context.Context, project, deployment string) (err error) {
	failed := d.call(ctx, "Sites.EnsureCurrent", func() {
		if !d.releases[project+"/"+deployment] {
			err = errs.New(errs.NotFound, "release %s is not here", deployment)
			return
		}
		d.current[project] = deployment
	})
	return errors.Join(failed, err)
}

// Prune implements Sites; as the real one it does not take the release away that current names, unless all goes.
func (d *disk) Prune(ctx context.Context, project string, keep func(string) bool) (err error) {
	failed := d.call(ctx, "Sites.Prune", func() {
		var gone []string
		kept := 0
		for r := range d.releases {
			switch p, dep, _ := strings.Cut(r, "/"); {
			case p != project:
			case keep(dep):
				kept++
			default:
				gone = append(gone, r)
			}
		}
		if kept == 0 {
			delete(d.webroots, project)
			delete(d.current, project)
		}
		for _, r := range gone {
			if r == project+"/"+d.current[project] {
				err = errs.New(errs.Conflict, "%s is the current one", r)
				continue
			}
			delete(d.releases, r)
		}
	})
	return errors.Join(failed, err)
}

// EnsureServer implements Engine.
func (d *disk) EnsureServer(ctx context.Context, project string, _ fsm.Health) (string, error) {
	return "fake:80", d.call(ctx, "Engine.EnsureServer", func() { d.servers[project] = true })
}

// RemoveServer implements Engine.
func (d *disk) RemoveServer(ctx context.Context, project string) error {
	return d.call(ctx, "Engine.RemoveServer", func() { delete(d.servers, project) })
}

// Working implements Engine.
func (d *disk) Working(ctx context.Context) (func(string) bool, error) {
	return func(project string) bool { return peek(d, d.servers, project) }, d.call(ctx, "Engine.Working", func() {})
}

// Inspect implements Inspector.
func (d *disk) Inspect(ctx context.Context, project, deployment string) (h Holding, err error) {
	err = d.call(ctx, "Inspector.Inspect", func() {
		h = Holding{Project: project, Deployment: deployment, Release: d.releases[project+"/"+deployment],
			Current: d.current[project] == deployment, Webroot: d.webroots[project]}
	})
	return h, err
}

// Routed implements Prober.
func (d *disk) Routed(ctx context.Context, _ *fsm.Deployment) error {
	return d.call(ctx, "Prober.Routed", func() {})
}

// Probe implements Prober.
func (d *disk) Probe(ctx context.Context, dep *fsm.Deployment) (err error) {
	failed := d.call(ctx, "Prober.Probe", func() {
		if !d.releases[dep.Project+"/"+dep.ID] || !d.servers[dep.Project] || !d.webroots[dep.Project] {
			err = errs.New(errs.Unhealthy, "deployment %s answers 404", dep.ID)
		}
	})
	return errors.Join(failed, err)
}

// Create implements Logs.
func (d *disk) Create(deployment string, phase fsm.Phase, attempt int) (io.WriteCloser, error) {
	name := fmt.Sprintf("%s/%s-%d", deployment, phase, attempt)
	var w *logFile
	err := d.call(context.Background(), "Logs.Create", func() {
		if d.logs[name] == nil {
			d.logs[name] = new(bytes.Buffer)
		}
		w = &logFile{d: d, to: d.logs[name]}
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

type logFile struct {
	d  *disk
	to *bytes.Buffer
}

func (f *logFile) Write(b []byte) (n int, err error) {
	failed := f.d.call(context.Background(), "log.Write", func() { n, err = f.to.Write(b) })
	return n, errors.Join(failed, err)
}

func (f *logFile) Close() error {
	return f.d.call(context.Background(), "log.Close", func() {})
}
