package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kontiki/static"
)

type serveCmd struct {
	app    *app
	root   string
	listen string
	trust  bool
	check  string
}

func newServe(a *app) *cobra.Command {
	s := &serveCmd{app: a}
	c := &cobra.Command{
		Use: "serve", Short: "Serve one project's releases over HTTP (runs inside containers)", Args: cobra.NoArgs,
		Long: `Serves the release that <root>/current points to. This is what a project-server container runs; nodes that
need no container serve the same way without it.

With --check it serves nothing: it asks a URL and ends with exit code 0 when the answer is below 400, which
is the container's health check.`,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	c.Flags().StringVar(&s.root, "root", "", "the project's folder, with current and releases in it")
	c.Flags().StringVar(&s.listen, "listen", ":80", "listen address")
	c.Flags().BoolVar(&s.trust, "trust-release-header", false, "serve the release that the header "+static.ReleaseHeader+" asks for; only where nodes alone can connect")
	c.Flags().StringVar(&s.check, "check", "", "ask this URL instead, and say by the exit code whether it is well")
	return c
}

func (s *serveCmd) run(ctx context.Context) error {
	if s.check != "" {
		return s.ask(ctx)
	}
	if info, err := os.Stat(s.root); err != nil || !info.IsDir() {
		return usage("give the project's folder with --root", "%q is not a folder", s.root)
	}
	root, err := filepath.Abs(s.root)
	if err != nil {
		return fmt.Errorf("find the folder: %w", err)
	}
	l, err := net.Listen("tcp", s.listen)
	if err != nil {
		return usage("choose another address with --listen", "listen: %w", err)
	}
	s.app.say("serving %s on %s", root, l.Addr())
	return s.serve(ctx, l, root)
}

func (s *serveCmd) serve(ctx context.Context, l net.Listener, root string) error {
	files := static.NewServer(filepath.Dir(root))
	defer files.Close()
	project := filepath.Base(root)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			files.ServeProject(w, r, project, s.trust)
		}),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		drained <- server.Shutdown(grace)
	})
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve: %w", err)
	}
	if err := <-drained; err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	// Not a success: Docker's policy on-failure starts again, after a restart of the engine or the machine, only what
	// ended with an error. What somebody stops through the engine stays stopped all the same.
	return errors.New("ended by a signal")
}

func (s *serveCmd) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.check, nil)
	if err != nil {
		return usage("give a URL such as http://127.0.0.1:80/", "--check: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if err := res.Body.Close(); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	// A project without a release yet is no failure of its server, which answers 503 by itself.
	if res.StatusCode >= 400 && res.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("check: %s answers %s", s.check, res.Status)
	}
	return nil
}
