package static

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kontiki/errs"
)

// ReleaseHeader names the release: in a request the one that is asked for, in an answer the one that gave it.
const ReleaseHeader = "Kontiki-Release"

const (
	indexFile    = "index.html"
	notFoundFile = "404.html"
	// lookups is how often a release is looked for that is gone a moment later.
	lookups = 3
)

// Server serves releases from the directory that holds the projects' directories. Each answer is made of one release
// alone. An answer of ServeProject without ReleaseHeader comes from no site: 503 when the release is not here, so that another node
// can be asked.
type Server struct {
	dir   string
	roots roots
}

// NewServer serves from dir, which holds <project>/releases/<deployment> and <project>/current.
func NewServer(dir string) *Server { return &Server{dir: filepath.Clean(dir)} }

// Close frees what is held open. The Server can be used on.
func (s *Server) Close() { s.roots.forget(s.dir) }

// forget frees a directory that was replaced or removed, and those below it.
func (s *Server) forget(path string) { s.roots.forget(path) }

// ServeRelease answers from the given release. An error means that the release is not here, or cannot be opened, and
// that nothing was written: another node can be asked.
func (s *Server) ServeRelease(w http.ResponseWriter, r *http.Request, project, deployment string) error {
	err := s.serve(w, r, project, deployment)
	for i := 1; i < lookups && errors.Is(err, fs.ErrNotExist); i++ {
		err = s.serve(w, r, project, deployment) // it may have been replaced under the request
	}
	if err != nil {
		w.Header().Del(ReleaseHeader)
	}
	return err
}

// ServeProject answers from the project's current release. With trustHeader a request may ask for another one in
// ReleaseHeader; set it only where requests come from nodes alone.
func (s *Server) ServeProject(w http.ResponseWriter, r *http.Request, project string, trustHeader bool) {
	if pinned := r.Header.Get(ReleaseHeader); trustHeader && pinned != "" {
		if err := s.ServeRelease(w, r, project, pinned); err != nil {
			unavailable(w, project, err)
		}
		return
	}
	err := s.serveCurrent(w, r, project)
	for i := 1; i < lookups && errors.Is(err, fs.ErrNotExist); i++ {
		err = s.serveCurrent(w, r, project) // current may have moved on, and its release been removed
	}
	if err != nil {
		unavailable(w, project, err)
	}
}

func (s *Server) serveCurrent(w http.ResponseWriter, r *http.Request, project string) error {
	if !validProject(project) {
		return fs.ErrNotExist
	}
	current, err := readCurrent(s.dir, project)
	if err != nil {
		return err
	}
	return s.serve(w, r, project, current)
}

// serve answers, or returns an error when the release cannot be opened or vanished and nothing was written.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, project, deployment string) error {
	if !validProject(project) || !validDeployment(deployment) {
		return fs.ErrNotExist
	}
	root, err := s.roots.acquire(s.dir, filepath.Join(s.dir, project, releasesDir, deployment))
	if err != nil {
		return err
	}
	defer s.roots.release(root)
	h := w.Header()
	h.Set(ReleaseHeader, deployment)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // keep it, but ask: the next release may be live by then
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
		return nil
	}
	a := &answer{w: w, r: r, root: root, deployment: deployment}
	err = a.give()
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		slog.Error("static file cannot be served", "project", project, "deployment", deployment, "error", err)
		http.Error(w, "500 the file cannot be read", http.StatusInternalServerError)
	}
	return nil
}

func unavailable(w http.ResponseWriter, project string, err error) {
	code := errs.CodeOf(err)
	if !errors.Is(err, fs.ErrNotExist) && code != errs.NotFound && code != errs.Conflict {
		slog.Error("release cannot be opened", "project", project, "error", err)
	}
	w.Header().Del(ReleaseHeader)
	w.Header().Set("Retry-After", "1")
	http.Error(w, "503 this release is not on this node", http.StatusServiceUnavailable)
}

// answer is one request to one release.
type answer struct {
	w          http.ResponseWriter
	r          *http.Request
	root       *openRoot
	deployment string
}

// give writes the answer; an error means that nothing was written: fs.ErrNotExist that the whole release vanished, any
// other that the disk failed.
func (a *answer) give() error {
	clean := path.Clean("/" + a.r.URL.Path)
	name := strings.TrimPrefix(clean, "/")
	slash := strings.HasSuffix(a.r.URL.Path, "/") || name == ""
	if name == "" {
		name = "."
	}
	f, info, err := a.open(name)
	if err != nil {
		return a.failed(err)
	}
	defer f.Close()
	switch {
	case info.IsDir():
		return a.directory(name, clean, slash)
	case slash || !info.Mode().IsRegular():
		return a.notFound()
	}
	a.content(f, info, name)
	return nil
}

func (a *answer) directory(name, clean string, slash bool) error {
	index := path.Join(name, indexFile)
	f, info, err := a.open(index)
	if err != nil {
		return a.failed(err)
	}
	defer f.Close()
	if !info.Mode().IsRegular() {
		return a.notFound()
	}
	if !slash { // links in a page are relative to its directory
		to := url.URL{Path: clean + "/", RawQuery: a.r.URL.RawQuery}
		http.Redirect(a.w, a.r, to.String(), http.StatusMovedPermanently)
		return nil
	}
	a.content(f, info, index)
	return nil
}

func (a *answer) open(name string) (*os.File, fs.FileInfo, error) {
	f, err := a.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold the request
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // only read
		return nil, nil, err
	}
	return f, info, nil
}

// content sends a file. A release never changes, so its name and the path say which bytes these are, equally on every
// node; times do not, for each node has extracted at another one.
func (a *answer) content(f *os.File, info fs.FileInfo, name string) {
	a.setType(name)
	a.w.Header().Set("ETag", `"`+a.deployment+"-"+strconv.FormatInt(info.Size(), 36)+`"`)
	http.ServeContent(a.w, a.r, "", time.Time{}, f)
}

func (a *answer) setType(name string) {
	if t := types[strings.ToLower(path.Ext(name))]; t != "" {
		a.w.Header().Set("Content-Type", t)
	}
}

// failed tells names that cannot exist from failures.
func (a *answer) failed(err error) error {
	for _, absent := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.EINVAL, syscall.ELOOP} {
		if errors.Is(err, absent) {
			return a.notFound()
		}
	}
	return err
}

// notFound sends the site's own page for this, if it has one. A release that was removed since it was opened lacks
// every file, which says nothing about the site.
func (a *answer) notFound() error {
	f, info, err := a.open(notFoundFile)
	if err == nil {
		defer f.Close()
	}
	if !a.root.named() { // asked last, so that nothing above can have missed it
		return fs.ErrNotExist
	}
	if err != nil || !info.Mode().IsRegular() {
		http.Error(a.w, "404 page not found", http.StatusNotFound)
		return nil
	}
	a.setType(notFoundFile)
	a.w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	a.w.WriteHeader(http.StatusNotFound)
	if a.r.Method == http.MethodGet {
		_, _ = io.CopyN(a.w, f, info.Size()) // a client that hung up learns nothing more
	}
	return nil
}
