package static

import (
	"path/filepath"
	"strings"
	"sync"
)

// durable remembers which names this process has brought to the disk, and what they name. A name that is found right may
// have been made by a process that was killed before its own sync, so it is synced once; after that, finding it right
// again costs nothing. The zero value is ready.
type durable struct {
	mu    sync.Mutex
	names map[string]string
}

// ensure syncs the directory of path unless it is known to be on the disk as what.
func (d *durable) ensure(path, what string) error {
	d.mu.Lock()
	known, ok := d.names[path]
	d.mu.Unlock()
	if ok && known == what {
		return nil
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	d.note(path, what)
	return nil
}

func (d *durable) note(path, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[string]string{}
	}
	d.names[path] = what
}

// changing is told before the name at path is changed.
func (d *durable) changing(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, path)
}

// forget drops path and all below it.
func (d *durable) forget(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.names {
		if name == path || strings.HasPrefix(name, path+string(filepath.Separator)) {
			delete(d.names, name)
		}
	}
}
