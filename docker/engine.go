package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"

	"kontiki/errs"
	"kontiki/fsm"
)

// oldestAPI is the oldest engine API that is spoken: Docker 20.10.
const oldestAPI = "1.41"

// Config is what an Engine needs. ClusterID, NodeID and DataDir are required.
type Config struct {
	Host      string       // of the engine, such as unix:///var/run/docker.sock; "" for the one Docker's environment names
	ClusterID string       // with NodeID it says which containers are ours
	NodeID    string       //
	DataDir   string       // the folder <DataDir>/static/<project> is what a project's server serves
	Binary    string       // a statically linked kontiki; "" for the running one
	Command   []string     // the server's arguments; it serves /site on port 80. nil for those of kontiki serve
	Check     []string     // the health check's arguments, exit code 0 means healthy. nil for those of kontiki serve
	Logger    *slog.Logger // slog.Default when nil
}

var (
	serveCommand = []string{"serve", "--root", siteMount, "--listen", ":80", "--trust-release-header"}
	checkCommand = []string{"serve", "--check", "http://127.0.0.1:80/"}
)

// limits are the deadlines of calls to the engine.
type limits struct {
	ping  time.Duration
	call  time.Duration // everything without a limit of its own
	image time.Duration // sending the image
	ready time.Duration // from a server's start to its first answer
	grace time.Duration // a server may go on for this long with the requests it has when it is stopped
	again time.Duration // a project's server is not looked up more often
}

var usualLimits = limits{ping: 2 * time.Second, call: 20 * time.Second, image: 2 * time.Minute, ready: 20 * time.Second,
	grace: 10 * time.Second, again: 500 * time.Millisecond}

// Engine runs the project servers of one node.
type Engine struct {
	cfg    Config
	api    *client.Client
	binary binary
	limits limits
	http   *http.Transport // to the servers

	image chan struct{} // held while the image is made
	mu    sync.Mutex    // guards projects
	// projects has an entry for each project that was asked for since the start.
	projects map[string]*project
}

// project is what is known of one project's server.
type project struct {
	work  chan struct{} // held while the server is changed
	place place
}

// Available reports whether an engine answers at host (see Config.Host) within two seconds.
func Available(ctx context.Context, host string) error {
	api, err := connect(ctx, host, usualLimits.ping)
	if err != nil {
		return err
	}
	return api.Close()
}

// Open connects to the engine, which must answer.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.ClusterID == "" || cfg.NodeID == "" || cfg.DataDir == "" {
		return nil, errs.New(errs.Invalid, "the Docker engine needs cluster ID, node ID and data directory")
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	cfg.DataDir = dir
	if cfg.Binary == "" {
		cfg.Binary = "/proc/self/exe"
	}
	if cfg.Command == nil {
		cfg.Command = serveCommand
	}
	if cfg.Check == nil {
		cfg.Check = checkCommand
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	bin, err := readBinary(cfg.Binary)
	if err != nil {
		return nil, err
	}
	api, err := connect(ctx, cfg.Host, usualLimits.ping)
	if err != nil {
		return nil, err
	}
	return &Engine{cfg: cfg, api: api, binary: bin, limits: usualLimits, http: newTransport(),
		image: make(chan struct{}, 1), projects: map[string]*project{}}, nil
}

// Close ends the connections to the engine and the servers; what runs goes on.
func (e *Engine) Close() error {
	e.http.CloseIdleConnections()
	if err := e.api.Close(); err != nil {
		return fmt.Errorf("close the Docker client: %w", err)
	}
	return nil
}

// connect gives a client of the engine, with the API version agreed.
func connect(ctx context.Context, host string, limit time.Duration) (*client.Client, error) {
	opts := []client.Opt{client.WithTLSClientConfigFromEnv(), client.WithHostFromEnv(), client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, errs.New(errs.Invalid, "Docker host %q: %w", host, err).WithField("docker_host").
			WithHint("give an address such as unix:///var/run/docker.sock")
	}
	err = call(ctx, limit, "reach the Docker engine at "+api.DaemonHost(), func(ctx context.Context) error {
		ping, err := api.Ping(ctx)
		if err == nil {
			api.NegotiateAPIVersionPing(ping)
		}
		return err
	})
	if err == nil && versions.LessThan(api.ClientVersion(), oldestAPI) {
		err = errs.New(errs.DockerError, "the Docker engine at %s speaks API %s only", api.DaemonHost(), api.ClientVersion()).
			WithHint("update it to Docker 20.10 or later")
	}
	if err != nil {
		return nil, errors.Join(err, api.Close())
	}
	return api, nil
}

// call makes one call to the engine, within the limit. The error is of code DockerTimeout, DiskFull or DockerError and
// wraps the engine's.
func call(ctx context.Context, limit time.Duration, action string, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(limited)
	switch {
	case err == nil:
		return nil
	case limited.Err() != nil && ctx.Err() == nil:
		return errs.New(errs.DockerTimeout, "%s: no answer within %s: %w", action, limit, err).
			WithHint("see whether the engine is well: docker info")
	case errors.Is(err, context.DeadlineExceeded):
		return errs.New(errs.DockerTimeout, "%s: %w", action, err).WithHint("see whether the engine is well: docker info")
	case client.IsErrConnectionFailed(err):
		return errs.New(errs.DockerError, "%s: %w", action, err).WithHint("start the engine: systemctl start docker")
	case strings.Contains(err.Error(), "no space left on device"): // the engine has no code for it, only this text
		return errs.New(errs.DiskFull, "%s: %w", action, err).WithHint("make room where Docker keeps its data: docker system df")
	}
	return errs.New(errs.DockerError, "%s: %w", action, err)
}

// project gives the entry of a project, whose name is checked.
func (e *Engine) project(name string) (*project, error) {
	if err := fsm.CheckName("project", name); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.projects[name]
	if p == nil {
		p = &project{work: make(chan struct{}, 1), place: place{turn: make(chan struct{}, 1)}}
		e.projects[name] = p
	}
	return p, nil
}

// acquire takes a lock made of a channel of one place, unless the context ends first.
func acquire(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.New(errs.DockerTimeout, "wait for another operation on the same server: %w", ctx.Err())
	}
}
