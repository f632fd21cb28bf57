package agent

import (
	"context"
	"sync"
	"time"
)

// locks keep removals in a project apart from work on it.
type locks struct {
	mu       sync.Mutex
	projects map[string]*sync.RWMutex
}

func (l *locks) of(project string) *sync.RWMutex {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.projects == nil {
		l.projects = map[string]*sync.RWMutex{}
	}
	m := l.projects[project]
	if m == nil {
		m = new(sync.RWMutex)
		l.projects[project] = m
	}
	return m
}

// together is for work on a project: it shares the project with other work.
func (a *Agent) together(ctx context.Context, project string) (unlock func(), err error) {
	m := a.locks.of(project)
	return m.RUnlock, waitLock(ctx, m.TryRLock)
}

// alone is for removals in a project: it waits until no work is under way and keeps new work waiting.
func (a *Agent) alone(ctx context.Context, project string) (unlock func(), err error) {
	m := a.locks.of(project)
	return m.Unlock, waitLock(ctx, m.TryLock)
}

// waitLock tries until it has the lock or ctx ends; sync's locks know no context.
func waitLock(ctx context.Context, try func() bool) error {
	for !try() {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
