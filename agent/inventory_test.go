package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"kontiki/errs"
	"kontiki/fsm"
)

func whole(n int, project string) Holding {
	return Holding{Project: project, Deployment: id(n), Release: true, Current: true, Webroot: true, Server: true}
}

func (s *stage) wantInventory(want ...Holding) {
	s.t.Helper()
	synctest.Wait()
	got, err := s.agent.Inventory(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := gocmp.Diff(append([]Holding{}, want...), got); diff != "" {
		s.t.Fatalf("the inventory is not what it should be:\n%s", diff)
	}
}

// The inventory says of each part whether it is there, of what is active on this node and of nothing else.
func TestInventory(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.wantInventory()
		s.deploy(1, "blog")
		s.deploy(2, "shop")
		s.elsewhere(3, "wiki")
		s.wantInventory(whole(1, "blog"), whole(2, "shop"))
		s.disk.set(func() {
			delete(s.disk.servers, "blog")
			delete(s.disk.current, "shop")
			delete(s.disk.webroots, "shop")
		})
		blog, shop := whole(1, "blog"), whole(2, "shop")
		blog.Server, shop.Current, shop.Webroot = false, false, false
		s.wantInventory(blog, shop)
		s.disk.set(func() { delete(s.disk.releases, "blog/"+id(1)) })
		blog.Release = false
		s.wantInventory(blog, shop)
	})
}

// An engine or a disk that fails has said nothing: not that a server is missing, not that a release is.
func TestInventoryOfWhatCannotBeLookedAt(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.deploy(2, "shop")
		s.disk.failing("Engine.Working", 1, errs.New(errs.DockerTimeout, "no answer"))
		if _, err := s.agent.Inventory(context.Background()); errs.CodeOf(err) != errs.DockerTimeout {
			t.Errorf("error %v", err)
		}
		s.disk.failing("Inspector.Inspect", 1, errors.New("input/output error"))
		s.wantInventory(whole(2, "shop"))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if got, err := s.agent.Inventory(ctx); err == nil {
			t.Errorf("an inventory that was broken off is %v", got)
		}
	})
}

// What the agent is just bringing about is not reported as missing, and before it runs nothing is.
func TestInventoryWaitsForTheAgent(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		if _, err := New(Config{Node: "n1"}).Inventory(context.Background()); errs.CodeOf(err) != errs.Unavailable {
			t.Errorf("before the agent runs: %v", err)
		}
		s.disk.on(hanging("Sites.EnsureCurrent"))
		s.deploy(1, "blog")
		s.want(1, fsm.StatusActive)
		s.wantInventory()
		s.stop()
		s.disk.on(hanging("Engine.EnsureServer"))
		s.start()
		synctest.Wait()
		s.wantInventory()
		s.stop()
		s.disk.on(nil)
		s.start()
		synctest.Wait()
		s.wantInventory(whole(1, "blog"))
	})
}

// A machine that was rebooted has no server running; what it lost beside is there again too, without anybody's order.
func TestStartMakesSureOfWhatIsActive(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.stop()
		s.disk.set(func() { clear(s.disk.servers); clear(s.disk.releases); clear(s.disk.webroots); clear(s.disk.current) })
		s.start()
		pass(time.Second)
		s.wantDisk(served(1, "blog")...)
	})
}

// What cannot be made sure of at the start is said, and left to the leader; the node's other work goes on.
func TestStartGoesOnWhenTheEngineFails(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.stop()
		s.disk.set(func() { clear(s.disk.servers) })
		s.disk.failing("Engine.EnsureServer", 1, errs.New(errs.DockerTimeout, "no answer"))
		s.start()
		synctest.Wait()
		lost := whole(1, "blog")
		lost.Server = false
		s.wantInventory(lost)
		s.deploy(2, "shop")
		s.want(2, fsm.StatusActive)
	})
}

// An order to place what serves here already mends whatever is missing of it, the current link too, which the agent
// believed to be right.
func TestPlaceMends(t *testing.T) {
	for name, lose := range map[string]func(d *disk){
		"server":  func(d *disk) { clear(d.servers) },
		"release": func(d *disk) { clear(d.releases) },
		"current": func(d *disk) { clear(d.current) },
		"webroot": func(d *disk) { clear(d.webroots) },
		"blobs":   func(d *disk) { clear(d.releases); clear(d.blobs) },
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(s *stage) {
				s.deploy(1, "blog")
				s.disk.set(func() {
					for digest := range s.disk.blobs {
						s.disk.remote[digest] = true
					}
					lose(s.disk)
				})
				s.wantDone(s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(1)}))
				s.wantDisk(served(1, "blog")...)
				s.wantInventory(whole(1, "blog"))
			})
		})
	}
}

// A release that is mended while it is replaced does not take current back.
func TestPlaceDoesNotTurnCurrentBack(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		go1 := make(chan struct{})
		s.disk.on(func(_ context.Context, call string) error {
			if call == "Sites.EnsureCurrent" {
				<-go1
			}
			return nil
		})
		r := s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(1)})
		s.deploy(2, "blog")
		s.want(2, fsm.StatusActive)
		close(go1)
		synctest.Wait()
		s.wantDone(r)
		if got := peek(s.disk, s.disk.current, "blog"); got != id(2) {
			t.Errorf("current is %s", got)
		}
	})
}
