package static

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"kontiki/errs"
)

// Inventory is what of a project is on this node's disk.
type Inventory struct {
	Project  string
	Releases []string // deployment IDs, sorted
	Current  string   // deployment ID, "" when current is absent or not a link of ours
	Webroot  bool     // the webroot link is right
}

// Inventory looks at a project. One that is absent has an empty inventory; an error says nothing about what is there.
func (s *Sites) Inventory(project string) (Inventory, error) {
	if err := checkNames(project); err != nil {
		return Inventory{}, err
	}
	webroot, err := s.hasWebroot(project)
	if err != nil {
		return Inventory{}, err
	}
	inv := Inventory{Project: project, Webroot: webroot}
	if ok, err := realDir(s.project(project)); err != nil || !ok {
		return inv, err
	}
	inv.Current, err = s.current(project)
	if code := errs.CodeOf(err); err != nil && code != errs.NotFound && code != errs.Conflict {
		return Inventory{}, err
	}
	if ok, err := realDir(s.releases(project)); err != nil || !ok {
		return inv, err
	}
	entries, err := os.ReadDir(s.releases(project))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // removed since we looked
		return Inventory{}, fmt.Errorf("list releases: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && validDeployment(e.Name()) {
			inv.Releases = append(inv.Releases, e.Name())
		}
	}
	return inv, nil
}
