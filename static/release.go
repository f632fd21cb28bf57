package static

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/source"
)

// release names one release and what it has to be.
type release struct {
	project, deployment string
	manifest            source.Manifest
	deep                bool // compare contents too, not only names, sizes and modes
}

// EnsureRelease makes the release be there, as its manifest says and durable. When it is there nothing is done but a
// quick comparison; when it is partial or wrong it is replaced. extract is called with an empty directory and must fill
// it with verified content, as source.Extract does. The errors are extract's, DiskFull, Digest when what was extracted
// is not what the manifest says, and those of the file system; a failed release leaves nothing behind.
func (s *Sites) EnsureRelease(ctx context.Context, project, deployment string, manifest source.Manifest, extract func(dst string) error) error {
	return s.ensureRelease(ctx, release{project, deployment, manifest, false}, extract)
}

// RepairRelease is EnsureRelease with every byte compared, for a release that may have been altered.
func (s *Sites) RepairRelease(ctx context.Context, project, deployment string, manifest source.Manifest, extract func(dst string) error) error {
	return s.ensureRelease(ctx, release{project, deployment, manifest, true}, extract)
}

func (s *Sites) ensureRelease(ctx context.Context, want release, extract func(dst string) error) error {
	leave, err := s.enter(ctx, want.project, want.deployment)
	if err != nil {
		return err
	}
	defer leave()
	dir := s.releases(want.project)
	if err := errors.Join(ensureDir(s.project(want.project)), ensureDir(dir)); err != nil {
		return err
	}
	if err := removeAll(dir, tempPrefix+want.deployment+"-", oldPrefix+want.deployment+"-"); err != nil {
		return err
	}
	final := filepath.Join(dir, want.deployment)
	err = source.VerifyTree(final, want.manifest, want.deep)
	switch errs.CodeOf(err) {
	case "":
		return s.durable.ensure(final, "")
	case errs.NotFound, errs.Digest:
	default:
		return err // not known to be wrong, so not to be replaced
	}
	temp, err := s.extract(ctx, want, extract)
	if err == nil {
		err = s.publish(temp, final)
	}
	if temp != "" {
		err = errors.Join(err, removeTree(temp)) // what failed, or what was replaced
	}
	return err
}

// extract fills a temporary directory with the release, and makes it durable. The directory is given also on failure.
func (s *Sites) extract(ctx context.Context, want release, extract func(dst string) error) (string, error) {
	temp := filepath.Join(s.releases(want.project), tempPrefix+want.deployment+"-"+rand.Text())
	if err := fault.Point("static.extract.before"); err != nil {
		return "", err
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return "", source.DiskError(err, "create release directory")
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return temp, fmt.Errorf("create release directory: %w", err)
	}
	if err := extract(temp); err != nil {
		return temp, err
	}
	if err := fault.Point("static.extract.after"); err != nil {
		return temp, err
	}
	if err := source.VerifyTree(temp, want.manifest, want.deep); err != nil {
		return temp, err
	}
	return temp, s.syncer.Sync(ctx)
}

// publish gives a durable directory its name. What had the name before is at temp afterwards.
func (s *Sites) publish(temp, final string) error {
	if err := fault.Point("static.release.rename.before"); err != nil {
		return err
	}
	s.durable.changing(final)
	_, err := os.Lstat(final)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.Rename(temp, final)
	case err == nil:
		err = exchange(temp, final)
	}
	if err != nil {
		return source.DiskError(err, "name release")
	}
	s.server.forget(final)
	if err := s.durable.ensure(final, ""); err != nil {
		return err
	}
	return fault.Point("static.release.rename.after")
}

// exchange swaps two names in one step, so that readers find the wrong one or the right one but always one. A file
// system that cannot do that leaves a moment without.
func exchange(temp, final string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return exchangeByRenames(temp, final)
	}
	return err
}

// exchangeByRenames is safe to be killed in: what it leaves then is a left-over and an absent or a right release.
func exchangeByRenames(temp, final string) error {
	old := filepath.Join(filepath.Dir(final), oldPrefix+filepath.Base(final)+"-"+rand.Text())
	if err := os.Rename(final, old); err != nil {
		return err
	}
	if err := os.Rename(temp, final); err != nil {
		return err
	}
	return os.Rename(old, temp)
}

// RemoveRelease deletes a release and its left-overs. One that is absent is a success; the one current points to is
// refused with code Conflict.
func (s *Sites) RemoveRelease(ctx context.Context, project, deployment string) error {
	leave, err := s.enter(ctx, project, deployment)
	if err != nil {
		return err
	}
	defer leave()
	dir := s.releases(project)
	for _, d := range []string{s.project(project), dir} {
		if ok, err := realDir(d); err != nil || !ok {
			return err
		}
	}
	current, err := s.current(project)
	if err == nil && current == deployment {
		return errs.New(errs.Conflict, "release %s is the current one of %s", deployment, project).
			WithHint("activate another release first")
	}
	if code := errs.CodeOf(err); err != nil && code != errs.NotFound && code != errs.Conflict {
		return err
	}
	if err := s.remove(filepath.Join(dir, deployment), filepath.Join(dir, oldPrefix+deployment+"-"+rand.Text())); err != nil {
		return err
	}
	return removeAll(dir, tempPrefix+deployment+"-", oldPrefix+deployment+"-")
}

// RemoveProject deletes the project's webroot link, releases and links. A project that is absent is a success; what
// stands in its place without being ours stays.
func (s *Sites) RemoveProject(ctx context.Context, project string) error {
	leave, err := s.enter(ctx, project)
	if err != nil {
		return err
	}
	defer leave()
	if ok, err := s.hasWebroot(project); err != nil {
		return err
	} else if ok {
		s.durable.changing(filepath.Join(s.www, project))
		if err := errors.Join(os.Remove(filepath.Join(s.www, project)), syncDir(s.www)); err != nil {
			return fmt.Errorf("remove webroot: %w", err)
		}
	}
	if ok, err := realDir(s.project(project)); err != nil || !ok {
		return err
	}
	defer s.server.forget(s.project(project))
	return s.remove(s.project(project), filepath.Join(s.static, oldPrefix+project+"-"+rand.Text()))
}

// remove takes something's name away at once and then deletes it, so that it is never there in part.
func (s *Sites) remove(path, old string) error {
	if err := fault.Point("static.remove.before"); err != nil {
		return err
	}
	err := os.Rename(path, old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return source.DiskError(err, "remove release")
	}
	s.server.forget(path)
	s.durable.forget(path)
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := removeTree(old); err != nil {
		return err
	}
	return fault.Point("static.remove.after")
}
