package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Syncer makes written files durable for many writers at once. One syncfs(2) of the file system costs about as much
// as a few fsyncs, however many files wait, so twenty small files are one wait and not twenty, and writers that come
// together share it.
type Syncer struct {
	dir  *os.File
	sync func(fd int) error

	mu      sync.Mutex
	waiting *round // callers that came since the running sync started; nil when none did
	running bool
	idle    sync.WaitGroup
}

// round is one sync and those who wait for it.
type round struct {
	done chan struct{}
	err  error
}

// NewSyncer makes a Syncer for the file system of dir. Close it after its last caller.
func NewSyncer(dir string) (*Syncer, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	return &Syncer{dir: d, sync: unix.Syncfs}, nil
}

// Sync returns when everything written to the file system before the call is durable, or when ctx ends. Callers that
// come while a sync runs share the next one, for the running one may have passed their files already.
func (s *Syncer) Sync(ctx context.Context) error {
	r := s.join()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("sync: %w", ctx.Err())
	}
}

func (s *Syncer) join() *round {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		s.waiting = &round{done: make(chan struct{})}
	}
	r := s.waiting
	if !s.running {
		s.running = true
		s.idle.Go(s.run)
	}
	return r
}

// run syncs for one round after the other until nobody waits. The kernel tells a failed write back once only, perhaps
// to a round that started before the owner of the lost pages came: a failure is told to the round after it as well.
func (s *Syncer) run() {
	var before error
	for {
		s.mu.Lock()
		r := s.waiting
		s.waiting = nil
		s.running = r != nil
		s.mu.Unlock()
		if r == nil {
			return
		}
		err := s.sync(int(s.dir.Fd()))
		if either := errors.Join(err, before); either != nil {
			r.err = diskError(either, "sync file system of %s", s.dir.Name())
		}
		before = err
		close(r.done)
	}
}

// Close waits for a running sync and frees the Syncer.
func (s *Syncer) Close() error {
	s.idle.Wait()
	if err := s.dir.Close(); err != nil {
		return fmt.Errorf("close data directory: %w", err)
	}
	return nil
}
