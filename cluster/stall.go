package cluster

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// stallWatch notices a write to the log that does not end. Raft's main loop is then inside that write and cannot step
// down, while its heartbeats go on and keep the others from electing a leader whose disk works. So for as long as the
// write lasts, nothing is sent to followers; they elect, and when the write ends at last this node finds it has lost.
type stallWatch struct {
	after time.Duration
	// ended is called after a write that stalled, on Raft's goroutine: it must not wait for Raft.
	ended   func()
	mu      sync.Mutex
	stalled atomic.Bool
}

// watch begins a write; the function it gives ends it. Raft has one write at a time.
func (s *stallWatch) watch() (done func()) {
	over := false
	timer := time.AfterFunc(s.after, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stalled.Store(!over) // it may come just after the write's end
	})
	return func() {
		timer.Stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		over = true
		if s.stalled.Swap(false) {
			s.ended()
		}
	}
}

var errStalled = errors.New("the disk under the Raft log does not answer: not sending as leader")

// latencies remembers how long the last writes took.
type latencies struct {
	mu   sync.Mutex
	last [128]time.Duration
	n    int
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[l.n%len(l.last)] = d
	l.n++
}

// quantiles gives the middle and the longest of the last writes.
func (l *latencies) quantiles() (p50, longest time.Duration) {
	l.mu.Lock()
	seen := slices.Clone(l.last[:min(l.n, len(l.last))])
	l.mu.Unlock()
	if len(seen) == 0 {
		return 0, 0
	}
	slices.Sort(seen)
	return seen[len(seen)/2], seen[len(seen)-1]
}
