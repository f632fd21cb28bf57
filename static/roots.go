package static

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxRoots is how many releases are held open at once.
const maxRoots = 128

// roots keeps the directories of releases open that were asked for last. What a path means is looked up every time, so
// a release that was replaced, by whatever process, is never served from the old directory.
type roots struct {
	mu    sync.Mutex
	open  map[string]*openRoot
	order list.List // of *openRoot, the last used in front
}

// openRoot is a release's directory, held open.
type openRoot struct {
	*os.Root
	path    string
	info    fs.FileInfo
	element *list.Element
	users   int
	dropped bool // closed by its last user
}

// named reports whether the directory still has its name.
func (o *openRoot) named() bool {
	info, err := os.Lstat(o.path)
	return err == nil && os.SameFile(info, o.info)
}

// acquire gives the directory at path, which must be below base without any link on the way; release it. The error is
// fs.ErrNotExist when there is none.
func (c *roots) acquire(base, path string) (*openRoot, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("look at release: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("release is a %s: %w", info.Mode().Type(), fs.ErrNotExist)
	}
	if o := c.known(path, info); o != nil {
		return o, nil
	}
	root, err := openRelease(base, path, info)
	if err != nil {
		return nil, err
	}
	return c.add(&openRoot{Root: root, path: path, info: info, users: 1}), nil
}

func (c *roots) known(path string, info fs.FileInfo) *openRoot {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.open[path]
	if o == nil {
		return nil
	}
	if !os.SameFile(o.info, info) {
		c.drop(o)
		return nil
	}
	c.order.MoveToFront(o.element)
	o.users++
	return o
}

// openRelease opens a directory after checking that no directory above it, up to base, is a link.
func openRelease(base, path string, info fs.FileInfo) (*os.Root, error) {
	for dir := filepath.Dir(path); dir != base; dir = filepath.Dir(dir) {
		if ok, err := realDir(dir); err != nil || !ok {
			return nil, errors.Join(err, fmt.Errorf("a directory above the release is not ours: %w", fs.ErrNotExist))
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open release: %w", err)
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(opened, info) {
		err = fmt.Errorf("release was replaced meanwhile: %w", fs.ErrNotExist)
	}
	if err != nil {
		_ = root.Close() // only read
		return nil, err
	}
	return root, nil
}

func (c *roots) add(o *openRoot) *openRoot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[string]*openRoot{}
	}
	if other := c.open[o.path]; other != nil {
		c.drop(other) // opened by two at once
	}
	o.element = c.order.PushFront(o)
	c.open[o.path] = o
	for c.order.Len() > maxRoots {
		c.drop(c.order.Back().Value.(*openRoot))
	}
	return o
}

// drop forgets a directory; its last user closes it. c.mu is held.
func (c *roots) drop(o *openRoot) {
	c.order.Remove(o.element)
	delete(c.open, o.path)
	o.dropped = true
	if o.users == 0 {
		_ = o.Close() // only read
	}
}

func (c *roots) release(o *openRoot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.users--; o.users == 0 && o.dropped {
		_ = o.Close() // only read
	}
}

// forget drops a directory and all below it.
func (c *roots) forget(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, o := range c.open {
		if p == path || strings.HasPrefix(p, path+string(filepath.Separator)) {
			c.drop(o)
		}
	}
}
