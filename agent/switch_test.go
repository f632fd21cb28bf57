package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

// Current follows the newest active release, however long one switch takes and whatever becomes active meanwhile.
func TestSwitchFollowsTheNewest(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		end := make(chan struct{})
		s.disk.on(func(_ context.Context, call string) error {
			if call == "Sites.EnsureCurrent" {
				<-end
			}
			return nil
		})
		s.deploy(1, "blog")
		s.deploy(2, "blog")
		s.deploy(3, "blog")
		s.want(3, fsm.StatusActive)
		close(end)
		synctest.Wait()
		if got := peek(s.disk, s.disk.current, "blog"); got != id(3) {
			t.Errorf("current is %s", got)
		}
	})
}

func TestSwitchRetriesUntilItWorks(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.failing("Sites.EnsureCurrent", 5, errs.New(errs.DiskFull, "no room"))
		s.deploy(1, "blog")
		s.want(1, fsm.StatusActive)
		pass(time.Minute)
		s.wantDisk(served(1, "blog")...)
	})
}

// A switch that cannot be done ends with the agent, and with what it was for.
func TestSwitchThatIsInVainEnds(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.failing("Sites.EnsureCurrent", 1<<30, errors.New("no"))
		s.deploy(1, "blog")
		s.stop()
		s.start()
		pass(time.Second)
		s.must(fsm.ProjectDelete{Name: "blog"})
		pass(time.Minute)
		tries := s.disk.count("Sites.EnsureCurrent")
		pass(time.Hour)
		if now := s.disk.count("Sites.EnsureCurrent"); now != tries {
			t.Errorf("%d tries more", now-tries)
		}
		s.wantDisk()
	})
}

// A restarted agent makes current follow what became active while nobody looked.
func TestSwitchAfterARestart(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.deploy(2, "blog")
		s.stop()
		s.disk.set(func() { s.disk.current["blog"] = id(1) })
		s.start()
		synctest.Wait()
		s.wantDisk("current blog="+id(2), "release blog/"+id(1), "release blog/"+id(2), "server blog", "webroot blog")
	})
}

// Regression: a job that has ended does not stand in the way of the next one of its key until the state changes again.
func TestEndedJobsGiveWay(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.stop()
		s.disk.set(func() { s.disk.current["blog"] = "older" })
		a := New(Config{Node: "n1", Replica: s.f, Proposer: s, Sites: s.disk, Logger: slog.New(slog.DiscardHandler)})
		over := &job{cancel: func() {}, ended: make(chan struct{})}
		close(over.ended)
		a.jobs[jobKey{kind: "switch", id: "blog"}] = over
		a.sweep(context.Background(), s.f.State())
		synctest.Wait()
		a.drain()
		if got := peek(s.disk, s.disk.current, "blog"); got != id(1) {
			t.Errorf("current is %s", got)
		}
		s.start()
	})
}

// At most Jobs jobs run at a time, the others wait; stopping ends those that wait, too.
func TestJobsAreLimited(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.on(hanging("Blobs.Ensure"))
		for n := range 40 {
			s.deploy(n, "site-"+strings.Repeat("x", n+1))
		}
		if n := s.disk.count("Blobs.Ensure"); n != 32 {
			t.Errorf("%d jobs run at a time", n)
		}
		s.stop()
		s.disk.on(nil)
		s.start()
		synctest.Wait()
		for n := range 40 {
			s.want(n, fsm.StatusActive)
		}
	})
}

var pointForm = regexp.MustCompile(`fault\.Point\("(agent\.[a-z_.]+)"\)`)

// points lists the fault points of this package, as its source has them.
func points(t *testing.T) []string {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pointForm.FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// An error at any fault point is a transient failure of what it stands in: the next try succeeds, and nothing is left
// half done.
func TestFaultAtEveryPoint(t *testing.T) {
	names := points(t)
	if len(names) != 18 {
		t.Errorf("the source has the points %v", names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(s *stage) {
				dir := t.TempDir()
				if err := fault.Arm(name+"=error", dir); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = fault.Arm("", "") }() // disarming cannot fail
				faulty(s)
				if _, err := os.Stat(filepath.Join(dir, name+".fired")); err != nil {
					t.Errorf("the fault did not fire: %v", err)
				}
			})
		})
	}
}

// faulty deploys twice and has the first release removed, with retries as a leader would order them.
func faulty(s *stage) {
	for n := 1; n <= 2; n++ {
		s.deploy(n, "blog")
		for s.get(n).Status == fsm.StatusRunning {
			if f := s.failed(n, errs.Internal); !f.Transient || !strings.Contains(f.Message, "injected fault") {
				s.t.Fatalf("failure %+v", f)
			}
			s.retry(n)
		}
		s.want(n, fsm.StatusActive)
	}
	pass(time.Second)
	r := s.order(fsm.RepairOrder{Repair: fsm.RepairCleanup, Project: "blog", Deployment: id(1)})
	pass(time.Second)
	s.wantDone(r)
	s.wantDisk(served(2, "blog")...)
}
