package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"

	"kontiki/errs"
)

func newSyncer(t *testing.T, sync func(int) error) *Syncer {
	t.Helper()
	s, err := NewSyncer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if sync != nil {
		s.sync = sync
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSyncReachesTheDisk(t *testing.T) {
	s := newSyncer(t, nil)
	if err := os.WriteFile(filepath.Join(s.dir.Name(), "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Callers that come during a sync must not be told that it covered them, and all of them share the next one.
func TestLateCallersShareTheNextSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, gate := 0, make(chan struct{})
		s := newSyncer(t, func(int) error { calls++; <-gate; return nil })
		done := make(chan error, 11)
		go func() { done <- s.Sync(t.Context()) }()
		synctest.Wait()
		for range 10 {
			go func() { done <- s.Sync(t.Context()) }()
		}
		synctest.Wait()
		gate <- struct{}{}
		synctest.Wait()
		if len(done) != 1 {
			t.Fatalf("%d callers returned after the first sync, want 1", len(done))
		}
		gate <- struct{}{}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if calls != 2 {
			t.Fatalf("%d syncs, want 2", calls)
		}
	})
}

func TestAFailureIsToldToTheNextRoundToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results := make(chan error)
		s := newSyncer(t, func(int) error { return <-results })
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- s.Sync(t.Context()) }()
		synctest.Wait()
		go func() { second <- s.Sync(t.Context()) }()
		synctest.Wait()
		results <- syscall.ENOSPC
		results <- nil
		wantCode(t, <-first, errs.DiskFull)
		wantCode(t, <-second, errs.DiskFull)
		third := make(chan error, 1)
		synctest.Wait()
		go func() { third <- s.Sync(t.Context()) }()
		results <- nil
		if err := <-third; err != nil {
			t.Fatal(err)
		}
	})
}

func TestSyncEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := newSyncer(t, func(int) error { <-gate; return nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Sync(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		close(gate)
	})
}

// BenchmarkTwentyFiles writes a small site and makes it durable, alone and beside others.
func BenchmarkTwentyFiles(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir := b.TempDir()
			s, err := NewSyncer(dir)
			if err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(writers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := writeSite(dir); err != nil {
						b.Error(err)
					}
					if err := s.Sync(b.Context()); err != nil {
						b.Error(err)
					}
				}
			})
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func writeSite(dir string) error {
	site, err := os.MkdirTemp(dir, "site-")
	if err != nil {
		return err
	}
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(site, fmt.Sprint(i)), make([]byte, 2000), 0o600); err != nil {
			return err
		}
	}
	return nil
}
