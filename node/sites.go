package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	"kontiki/agent"
	"kontiki/fsm"
	"kontiki/source"
	"kontiki/static"
)

var (
	_ agent.Sites     = sites{}
	_ agent.Inspector = sites{}
	_ agent.Engine    = embedded{}
)

// maxManifest bounds a manifest that is read back; 20,000 files with the longest names stay below it.
const maxManifest = 64 << 20

// sites is the agent's view of static releases.
type sites struct{ *static.Sites }

// Manifest implements agent.Sites.
func (s sites) Manifest(ctx context.Context, archive *os.File, format string) (agent.Manifest, error) {
	m, err := source.Build(ctx, archive, source.Format(format), source.DefaultLimits)
	if err != nil {
		return agent.Manifest{}, err
	}
	return agent.Manifest{Encoded: m.Encode(), Files: len(m.Files), Bytes: m.Bytes()}, nil
}

// EnsureRelease implements agent.Sites.
func (s sites) EnsureRelease(ctx context.Context, d *fsm.Deployment, archive, manifest *os.File) error {
	b, err := io.ReadAll(io.LimitReader(manifest, maxManifest))
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	m, err := source.DecodeManifest(b)
	if err != nil {
		return err
	}
	return s.Sites.EnsureRelease(ctx, d.Project, d.ID, m, func(dst string) error {
		return source.Extract(ctx, archive, source.Format(d.Artifact.Format), m, dst)
	})
}

// Prune implements agent.Sites.
func (s sites) Prune(ctx context.Context, project string, keep func(deployment string) bool) error {
	inv, err := s.Inventory(project)
	if err != nil {
		return err
	}
	kept := 0
	for _, id := range inv.Releases {
		if keep(id) {
			kept++
		}
	}
	if kept == 0 {
		return s.RemoveProject(ctx, project)
	}
	for _, id := range inv.Releases {
		if keep(id) {
			continue
		}
		if err := s.RemoveRelease(ctx, project, id); err != nil {
			return err
		}
	}
	return nil
}

// Inspect implements agent.Inspector.
func (s sites) Inspect(_ context.Context, project, deployment string) (agent.Holding, error) {
	inv, err := s.Inventory(project)
	if err != nil {
		return agent.Holding{}, err
	}
	return agent.Holding{Project: project, Deployment: deployment, Release: slices.Contains(inv.Releases, deployment),
		Current: inv.Current == deployment, Webroot: inv.Webroot}, nil
}

// embedded is the engine that needs nothing installed: the node itself serves static sites.
type embedded struct{ server *static.Server }

// EnsureServer implements agent.Engine: the node is running, or it would not be asked.
func (embedded) EnsureServer(context.Context, string, fsm.Health) (string, error) {
	return "embedded", nil
}

// RemoveServer implements agent.Engine.
func (embedded) RemoveServer(context.Context, string) error { return nil }

// Working implements agent.Engine: the node itself is the server.
func (embedded) Working(context.Context) (func(project string) bool, error) {
	return func(string) bool { return true }, nil
}

// ServeRelease implements ingress.Local.
func (e embedded) ServeRelease(w http.ResponseWriter, r *http.Request, project, deployment string) error {
	return e.server.ServeRelease(w, r, project, deployment)
}
