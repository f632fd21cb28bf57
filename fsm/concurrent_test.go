package fsm

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"kontiki/errs"
)

// Readers may look at any time: every view is whole, has one active deployment per project that says so, and what a
// reader has seen once it sees from then on.
func TestReadersWhileEntriesAreApplied(t *testing.T) {
	m := three(t)
	m.activate(1, "blog")
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var seen uint64
			for {
				changed := m.f.Changed()
				s := m.f.State()
				p := s.Project("blog")
				if d := s.ActiveOf(p); d == nil || d.Status != StatusActive || d.Number < seen {
					t.Errorf("at %d the active deployment is %+v after number %d", s.Index, d, seen)
					return
				} else {
					seen = d.Number
				}
				if n := count(s.DeploymentsOf("blog", 0)); uint64(n) != p.NextNumber-1 {
					t.Errorf("%d deployments, and the next is number %d", n, p.NextNumber)
					return
				}
				_, _ = m.f.Audit(3), m.f.Halted()
				select {
				case <-changed:
				case <-stop:
					return
				}
			}
		})
	}
	for n := 2; n < 30; n++ {
		m.activate(n, "blog")
	}
	close(stop)
	readers.Wait()
}

// A restore is a change like any other: who waits is woken, and views taken before stay as they were.
func TestRestoreWakesWhoWaits(t *testing.T) {
	m, late := full(t), New()
	before, changed := late.State(), late.Changed()
	done, ctx := make(chan error, 1), soon(t)
	go func() { done <- late.Wait(ctx, m.index) }()
	if err := late.Restore(bytes.NewReader(snapshotBytes(t, m.f))); err != nil {
		t.Fatal(err)
	}
	<-changed
	if err := <-done; err != nil {
		t.Error(err)
	}
	if before.Project("blog") != nil || late.State().Project("blog") == nil || late.State().Index != m.index {
		t.Error("the view taken before the restore changed, or the one after it is old")
	}
}

// The queue of the whole cluster is bounded too.
func TestQueueOfTheClusterIsBounded(t *testing.T) {
	m := three(t)
	x := m.f.begin(m.index+1, 1)
	for i := range queuedInAll {
		d := &Deployment{ID: fmt.Sprint("d", i), Project: fmt.Sprint("p", i), Number: 1, Progress: Progress{Status: StatusQueued, Phase: PhaseQueued}}
		put(x, tableDeployments, d, &d.Indexes)
	}
	x.commit()
	m.index++
	m.refuse(errs.TooMany, creation(1, "one-more"))
}
