// Package static keeps the releases of static sites on one node's disk, the links that name the current one, and
// serves them over HTTP.
//
//	<data>/static/<project>/releases/<deployment>/…               immutable
//	<data>/static/<project>/current -> releases/<deployment>
//	<data>/www/<project> -> ../static/<project>/current
//
// Sites changes the disk. Every Ensure… looks at what is there, acts on the difference only, and may be killed at any
// instant and run again. A release appears under its name whole and durable or not at all; a link changes by rename(2),
// so it is the old or the new one and never absent. No link is followed in doing so: what somebody else put in the
// place of a directory or link of ours is moved aside, not deleted. One process at a time may own a data directory;
// within it Sites may be used concurrently, and changes of one project wait for one another; looking waits for nothing.
//
// Server only reads, needs no Sites and may run in other processes; it may be used concurrently.
package static

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"kontiki/errs"
	"kontiki/source"
)

const (
	releasesDir = "releases"
	currentLink = "current"
	tempPrefix  = ".tmp-"   // a release being extracted
	oldPrefix   = ".old-"   // something being deleted
	linkPrefix  = ".link-"  // a link about to be renamed
	asidePrefix = ".aside-" // something foreign that stood in the way; never touched again
)

// Syncer makes everything written before the call durable.
type Syncer interface {
	Sync(ctx context.Context) error
}

// Sites is the releases and links below one data directory.
type Sites struct {
	static  string // <data>/static
	www     string // <data>/www
	syncer  Syncer
	server  *Server
	locks   keyed
	durable durable
}

// Open makes the directories and removes what a process that was killed left half done.
func Open(dataDir string, syncer Syncer) (*Sites, error) {
	s := &Sites{static: filepath.Join(dataDir, "static"), www: filepath.Join(dataDir, "www"), syncer: syncer}
	for _, dir := range []string{s.static, s.www} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, source.DiskError(err, "create %s", dir)
		}
	}
	if err := s.removeLeftOvers(); err != nil {
		return nil, err
	}
	s.server = NewServer(s.static)
	return s, nil
}

// Server serves these sites in this process.
func (s *Sites) Server() *Server { return s.server }

// Close frees what serving holds open.
func (s *Sites) Close() { s.server.Close() }

func (s *Sites) removeLeftOvers() error {
	if err := removeAll(s.static, oldPrefix); err != nil {
		return err
	}
	if err := removeAll(s.www, linkPrefix); err != nil {
		return err
	}
	projects, err := s.Projects()
	if err != nil {
		return err
	}
	for _, p := range projects {
		if err := removeAll(filepath.Join(s.static, p), linkPrefix); err != nil {
			return err
		}
		ok, err := realDir(s.releases(p))
		if err == nil && ok {
			err = removeAll(s.releases(p), tempPrefix, oldPrefix)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Projects gives the names of all projects that have a directory here, sorted.
func (s *Sites) Projects() ([]string, error) {
	entries, err := os.ReadDir(s.static)
	if err != nil {
		return nil, fmt.Errorf("list projects: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && validProject(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (s *Sites) project(project string) string  { return filepath.Join(s.static, project) }
func (s *Sites) releases(project string) string { return filepath.Join(s.static, project, releasesDir) }

// enter checks names and waits until no other call changes the project. leave must be called.
func (s *Sites) enter(ctx context.Context, project string, deployments ...string) (leave func(), err error) {
	if err := checkNames(project, deployments...); err != nil {
		return nil, err
	}
	return s.locks.lock(ctx, project)
}

func checkNames(project string, deployments ...string) error {
	if !validProject(project) {
		return errs.New(errs.Invalid, "%+q is not a project name", project).WithField("project").
			WithHint("use 1 to 63 lower-case letters, digits and hyphens, not starting with a hyphen")
	}
	for _, d := range deployments {
		if !validDeployment(d) {
			return errs.New(errs.Invalid, "%+q is not a deployment ID", d).WithField("deployment").
				WithHint("use 1 to 64 letters and digits")
		}
	}
	return nil
}

func validProject(name string) bool {
	return len(name) >= 1 && len(name) <= 63 && name[0] != '-' && only(name, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	})
}

func validDeployment(id string) bool {
	return len(id) >= 1 && len(id) <= 64 && only(id, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	})
}

func only(s string, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

// realDir reports whether a directory is there that is no link to one. Other things in its place are not.
func realDir(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at directory: %w", err)
	}
	return info.IsDir(), nil
}

// ensureDir makes a real directory, moving aside what stands in its place.
func ensureDir(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		err = moveAside(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at directory: %w", err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return source.DiskError(err, "create directory")
	}
	if err := os.Chmod(path, 0o755); err != nil { // whatever the umask is: others serve from here
		return fmt.Errorf("create directory: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func moveAside(path string) error {
	dir, base := filepath.Split(path)
	if err := os.Rename(path, filepath.Join(dir, asidePrefix+base+"-"+rand.Text())); err != nil {
		return source.DiskError(err, "move aside what is not ours")
	}
	return nil
}

// removeAll removes the entries of dir whose names start with one of the prefixes.
func removeAll(dir string, prefixes ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for left-overs: %w", err)
	}
	for _, e := range entries {
		for _, p := range prefixes {
			if strings.HasPrefix(e.Name(), p) {
				if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// removeTree removes a directory, also one whose directories were made read-only. Links in it are not followed.
func removeTree(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(p, 0o700)
		}
		return nil // RemoveAll below tells what cannot be helped
	})
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory to sync: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return source.DiskError(err, "sync directory")
	}
	return nil
}

// keyed is one lock per key. The zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]*slot
}

type slot struct {
	free  chan struct{} // holds one token while nobody has the lock
	users int           // holders and waiters
}

func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*slot{}
	}
	s := k.held[key]
	if s == nil {
		s = &slot{free: make(chan struct{}, 1)}
		s.free <- struct{}{}
		k.held[key] = s
	}
	s.users++
	k.mu.Unlock()
	select {
	case <-s.free:
		return func() { s.free <- struct{}{}; k.leave(key, s) }, nil
	case <-ctx.Done():
		k.leave(key, s)
		return nil, fmt.Errorf("wait for another change of %s: %w", key, ctx.Err())
	}
}

func (k *keyed) leave(key string, s *slot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(k.held, key)
	}
}
