package static

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/source"
)

// EnsureCurrent makes the project's current link name a release, durably. A release that is absent is refused with
// code NotFound and the link stays as it is.
func (s *Sites) EnsureCurrent(ctx context.Context, project, deployment string) error {
	leave, err := s.enter(ctx, project, deployment)
	if err != nil {
		return err
	}
	defer leave()
	for _, dir := range []string{s.project(project), s.releases(project), filepath.Join(s.releases(project), deployment)} {
		ok, err := realDir(dir)
		if err != nil {
			return err
		}
		if !ok {
			return errs.New(errs.NotFound, "release %s of %s is not on this node", deployment, project).
				WithHint("extract the release first")
		}
	}
	return s.flip(project, deployment)
}

func (s *Sites) flip(project, deployment string) error {
	link := filepath.Join(s.project(project), currentLink)
	target := filepath.Join(releasesDir, deployment)
	if current, err := s.current(project); err == nil && current == deployment {
		return s.durable.ensure(link, target)
	}
	if err := fault.Point("static.current.before"); err != nil {
		return err
	}
	if err := prepareLink(link, target); err != nil {
		return err
	}
	if err := fault.Point("static.current.flip"); err != nil {
		return err
	}
	if err := s.renameLink(link, target); err != nil {
		return err
	}
	return fault.Point("static.current.after")
}

// EnsureWebroot makes the project's webroot link, durably. It names the current link, so it need never change.
func (s *Sites) EnsureWebroot(ctx context.Context, project string) error {
	leave, err := s.enter(ctx, project)
	if err != nil {
		return err
	}
	defer leave()
	link := filepath.Join(s.www, project)
	if ok, err := s.hasWebroot(project); err != nil {
		return err
	} else if ok {
		return s.durable.ensure(link, webrootTarget(project))
	}
	if err := fault.Point("static.webroot.before"); err != nil {
		return err
	}
	if err := prepareLink(link, webrootTarget(project)); err != nil {
		return err
	}
	if err := s.renameLink(link, webrootTarget(project)); err != nil {
		return err
	}
	return fault.Point("static.webroot.after")
}

func webrootTarget(project string) string {
	return filepath.Join("..", "static", project, currentLink)
}

func (s *Sites) hasWebroot(project string) (bool, error) {
	target, err := readLink(filepath.Join(s.www, project))
	if code := errs.CodeOf(err); code == errs.NotFound || code == errs.Conflict {
		return false, nil
	}
	return target == webrootTarget(project), err
}

// Current gives the deployment that the project's current link names. NotFound: there is no link; Conflict: what is
// there is not a link of ours. The link is read, not followed.
func (s *Sites) Current(project string) (string, error) {
	if err := checkNames(project); err != nil {
		return "", err
	}
	return s.current(project)
}

func (s *Sites) current(project string) (string, error) {
	return readCurrent(s.static, project)
}

// readCurrent reads <dir>/<project>/current.
func readCurrent(dir, project string) (string, error) {
	link := filepath.Join(dir, project, currentLink)
	target, err := readLink(link)
	if err != nil {
		return "", err
	}
	deployment, ok := strings.CutPrefix(target, releasesDir+"/")
	if !ok || !validDeployment(deployment) {
		return "", errs.New(errs.Conflict, "%s leads to %+q, which is not a release", link, target)
	}
	return deployment, nil
}

// readLink reads a link. NotFound: nothing is there; Conflict: something else is.
func readLink(link string) (string, error) {
	target, err := os.Readlink(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", errs.New(errs.NotFound, "%s is absent", link)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTDIR):
		return "", errs.New(errs.Conflict, "%s is not a link", link)
	case err != nil:
		return "", fmt.Errorf("read link: %w", err)
	}
	return target, nil
}

func tempLink(link string) string {
	return filepath.Join(filepath.Dir(link), linkPrefix+filepath.Base(link))
}

// prepareLink makes the new link beside the place it is meant for, and clears that of what is not a link.
func prepareLink(link, target string) error {
	temp := tempLink(link)
	if err := removeTree(temp); err != nil { // of a run that was killed; calls for one project do not overlap
		return err
	}
	if err := os.Symlink(target, temp); err != nil {
		return source.DiskError(err, "create link")
	}
	info, err := os.Lstat(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at link: %w", err)
	case info.Mode().Type() != fs.ModeSymlink:
		return moveAside(link)
	}
	return nil
}

// renameLink puts the prepared link in its place, in one step.
func (s *Sites) renameLink(link, target string) error {
	s.durable.changing(link)
	if err := os.Rename(tempLink(link), link); err != nil {
		return source.DiskError(err, "rename link")
	}
	return s.durable.ensure(link, target)
}
