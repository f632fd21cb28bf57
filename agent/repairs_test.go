package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// open lists n1's open repairs.
func open(s *stage) (all []*fsm.Repair) {
	for r := range s.f.State().PendingRepairs("n1") {
		all = append(all, r)
	}
	return all
}

// elsewhere makes a deployment active on n2 only, with n2's part played by the test.
func (s *stage) elsewhere(n int, project string) {
	s.t.Helper()
	s.queue(n, project)
	s.must(fsm.DeploymentStart{ID: id(n), Builder: "n2", Targets: []string{"n2"}})
	manifest := digestOf([]byte("manifest"))
	s.disk.set(func() { s.disk.remote[manifest] = true })
	for d := s.get(n); d.Status == fsm.StatusRunning; d = s.get(n) {
		r := fsm.StepReport{StepKey: fsm.StepKey{Deployment: d.ID, Phase: d.Phase, Attempt: 1, Node: "n2"}}
		if d.Phase == fsm.PhaseBuilding {
			r.Artifact = &fsm.Artifact{Content: d.Source.Digest, Format: "tar", Manifest: manifest}
		}
		s.must(r)
	}
	s.want(n, fsm.StatusActive)
}

func (s *stage) wantDone(r *fsm.Repair) {
	s.t.Helper()
	if r = s.repair(r.ID); r.State != fsm.StepDone {
		s.t.Fatalf("the repair is %+v\n%s", r, s.log.String())
	}
}

func TestPlace(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.elsewhere(1, "blog")
		s.wantDone(s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(1)}))
		if d := s.get(1); !d.Serves("n1") {
			t.Errorf("instances %v", d.Instances)
		}
		s.wantDisk(served(1, "blog")...)
	})
}

// A failing place is tried again with growing pauses until it works.
func TestPlaceRetries(t *testing.T) {
	for _, call := range []string{"Sites.EnsureRelease", "Sites.EnsureWebroot"} {
		onStage(t, nil, func(s *stage) {
			s.elsewhere(1, "blog")
			s.disk.failing(call, 3, errs.New(errs.DiskFull, "no room"))
			r := s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(1)})
			if r.Attempt != 2 || r.State != fsm.StepPending || !strings.Contains(r.Message, "no room") {
				t.Errorf("after the first failure: %+v", r)
			}
			pass(2 * time.Second)
			s.wantDone(r)
			if got := s.repair(r.ID).Attempt; got != 4 {
				t.Errorf("done in attempt %d", got)
			}
		})
	}
}

// What was replaced while the order waited is not placed, and nobody believes that it was.
func TestPlaceOfWhatIsReplaced(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.elsewhere(1, "blog")
		s.stop()
		r := s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(1)})
		s.elsewhere(2, "blog")
		s.start()
		synctest.Wait()
		s.wantDone(r)
		s.wantDisk()
		if s.get(1).Serves("n1") {
			t.Errorf("instances %v", s.get(1).Instances)
		}
	})
}

func TestCleanup(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.deploy(2, "blog")
		s.wantDone(s.order(fsm.RepairOrder{Repair: fsm.RepairCleanup, Project: "blog", Deployment: id(1)}))
		s.wantDisk(served(2, "blog")...)
		if s.get(1).Serves("n1") {
			t.Error("it is still said to serve")
		}
	})
}

// What serves is never removed, whoever orders it.
func TestCleanupLeavesTheActiveOne(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		r := s.order(fsm.RepairOrder{Repair: fsm.RepairCleanup, Project: "blog", Deployment: id(1)})
		pass(time.Hour)
		if r = s.repair(r.ID); r.State != fsm.StepPending || !strings.Contains(r.Message, "is active and stays") {
			t.Errorf("repair %+v", r)
		}
		s.wantDisk(served(1, "blog")...)
		if r.Attempt > 200 {
			t.Errorf("%d attempts in an hour", r.Attempt)
		}
	})
}

// A node that was left out of what became active has no part in it: what it has of it goes, with the server.
func TestCleanupOfWhatServesElsewhere(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.elsewhere(1, "blog")
		s.disk.set(func() { s.disk.releases["blog/"+id(1)], s.disk.servers["blog"] = true, true })
		s.wantDone(s.order(fsm.RepairOrder{Repair: fsm.RepairCleanup, Project: "blog", Deployment: id(1)}))
		s.wantDisk()
	})
}

// A failed redeploy takes nothing from what serves; a failed first one leaves nothing, server included.
func TestFailedDeploymentsCleanUp(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.on(hanging("Prober.Probe"))
		s.deploy(1, "blog")
		s.must(fsm.DeploymentCancel{ID: id(1)})
		pass(time.Second)
		s.wantDisk()
		s.disk.on(nil)
		s.deploy(2, "blog")
		s.disk.on(hanging("Prober.Probe"))
		s.deploy(3, "blog")
		s.must(fsm.DeploymentCancel{ID: id(3)})
		pass(time.Second)
		s.wantDisk(served(2, "blog")...)
	})
}

// The server stays while the node is ordered to place another release of the project.
func TestCleanupKeepsTheServerOfWhatIsToCome(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.elsewhere(1, "blog")
		s.disk.on(hanging("Sites.EnsureWebroot"))
		s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(1)})
		a := New(Config{Node: "n1", Replica: s.f})
		if !a.usesServer(s.f.State(), &fsm.Repair{Project: "blog", Deployment: id(7)}) {
			t.Error("the server is not said to be of use")
		}
	})
}

func TestForget(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.deploy(2, "shop")
		s.must(fsm.ProjectDelete{Name: "blog"})
		s.wantDisk(served(2, "shop")...)
		if len(open(s)) != 0 {
			t.Errorf("open: %+v", open(s))
		}
	})
}

// A project of the same name made since keeps its releases, and what is left of the old one goes once current can.
func TestForgetKeepsTheNewProject(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.stop()
		s.must(fsm.ProjectDelete{Name: "blog"})
		s.disk.set(func() { s.disk.releases["blog/"+id(2)] = true })
		s.queue(2, "blog")
		s.start()
		synctest.Wait()
		if got := s.disk.has(); !strings.Contains(got, "release blog/"+id(2)) {
			t.Fatalf("on the disk is\n%s", got)
		}
		s.must(fsm.DeploymentStart{ID: id(2), Builder: "n1", Targets: []string{"n1"}})
		pass(time.Minute)
		s.want(2, fsm.StatusActive)
		s.wantDisk(served(2, "blog")...)
		if len(open(s)) != 0 {
			t.Errorf("open: %+v", open(s)[0])
		}
	})
}

func TestForgetAndCleanupRetry(t *testing.T) {
	for _, call := range []string{"Engine.RemoveServer", "Sites.Prune"} {
		onStage(t, nil, func(s *stage) {
			s.deploy(1, "blog")
			s.disk.failing(call, 1, errs.New(errs.DockerTimeout, "no answer"))
			s.must(fsm.ProjectDelete{Name: "blog"})
			pass(time.Second)
			s.wantDisk()
			s.disk.on(hanging("Prober.Probe"))
			s.deploy(2, "shop")
			s.disk.failing(call, 1, errs.New(errs.DockerTimeout, "no answer"))
			s.must(fsm.DeploymentCancel{ID: id(2)})
			pass(time.Second)
			s.wantDisk()
		})
	}
}

func TestBlobRepairs(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.set(func() { s.disk.remote[digestOf([]byte("x"))] = true })
		x := digestOf([]byte("x"))
		s.wantDone(s.order(fsm.RepairOrder{Repair: fsm.RepairFetchBlob, Digest: x}))
		if b := s.f.State().Blob(x); b == nil || !peek(s.disk, s.disk.blobs, x) {
			t.Errorf("blob %+v", b)
		}
		drop := s.order(fsm.RepairOrder{Repair: fsm.RepairDropBlob, Digest: x})
		pass(dropDelay - time.Second)
		if !peek(s.disk, s.disk.blobs, x) {
			t.Error("the blob went before an upload of the same content could show that it is needed")
		}
		pass(time.Second)
		s.wantDone(drop)
		if s.f.State().Blob(x) != nil || peek(s.disk, s.disk.blobs, x) {
			t.Error("the blob is still there")
		}
	})
}

// A blob that something has come to need since the order stays, archives as well as manifests, and is known to be there.
func TestNeededBlobsStay(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		d := s.get(1)
		for _, digest := range []string{d.Source.Digest, d.Artifact.Manifest} {
			r := s.order(fsm.RepairOrder{Repair: fsm.RepairDropBlob, Digest: digest})
			pass(time.Minute)
			s.wantDone(r)
			if b := s.f.State().Blob(digest); b == nil || !peek(s.disk, s.disk.blobs, digest) {
				t.Errorf("blob %s: %+v", digest, b)
			}
		}
	})
}

// Regression: an agent that dies while it places a release, and comes back when that was replaced, removes what it had
// made; one whose report was lost finds that the node serves it, and leaves it.
func TestPlaceInterruptedAndReplaced(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.elsewhere(1, "blog")
		s.disk.on(hanging("Sites.EnsureWebroot"))
		r := s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(1)})
		s.wantDisk("release blog/"+id(1), "server blog")
		s.stop()
		s.elsewhere(2, "blog")
		s.disk.on(nil)
		s.start()
		synctest.Wait()
		s.wantDone(r)
		s.wantDisk()
		s.deploy(3, "blog")
		s.deploy(4, "blog")
		s.wantDone(s.order(fsm.RepairOrder{Repair: fsm.RepairPlace, Project: "blog", Deployment: id(3)}))
		if !peek(s.disk, s.disk.releases, "blog/"+id(3)) {
			t.Error("a release that serves was removed")
		}
	})
}

// Regression: a project's server goes when the node has nothing more to serve, though a deployment that runs elsewhere is
// under way; what the node itself prepares keeps it.
func TestServerGoesWhenNothingIsServed(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.on(hanging("Prober.Probe"))
		s.deploy(1, "blog")
		s.stop()
		s.must(fsm.DeploymentCancel{ID: id(1)})
		s.queue(2, "blog")
		s.must(fsm.DeploymentStart{ID: id(2), Builder: "n2", Targets: []string{"n2"}})
		s.start()
		synctest.Wait()
		s.wantDisk()
		s.must(fsm.DeploymentCancel{ID: id(2)})
		s.deploy(3, "blog") // hangs in its health check
		s.order(fsm.RepairOrder{Repair: fsm.RepairForget, Project: "blog"})
		s.stop()
		a := New(Config{Node: "n1", Replica: s.f})
		if !a.usesServer(s.f.State(), &fsm.Repair{Project: "blog", Deployment: id(1)}) {
			t.Error("the server of a release under way is said to be of no use")
		}
		s.disk.on(nil)
		s.start()
		pass(time.Second)
		s.wantDisk(served(3, "blog")...)
	})
}

// Regression: a node that no longer serves the project's active release gets rid of the others all the same, the one that
// current names included, and of the server when two are cleaned up at a time.
func TestCleanupWhereTheActiveOneIsElsewhere(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.deploy(2, "blog")
		s.elsewhere(3, "blog")
		s.wantDone(s.order(fsm.RepairOrder{Repair: fsm.RepairCleanup, Project: "blog", Deployment: id(2)}))
		s.wantDisk(served(1, "blog")...)
		s.deploy(4, "blog")
		s.elsewhere(5, "blog")
		s.stop()
		for _, n := range []int{1, 4} {
			s.order(fsm.RepairOrder{Repair: fsm.RepairCleanup, Project: "blog", Deployment: id(n)})
		}
		s.disk.failing("Sites.EnsureCurrent", 2, errs.New(errs.DiskFull, "no room"))
		s.start()
		pass(time.Minute)
		s.wantDisk()
	})
}

// A repair that is withdrawn while it waits for its lock or its next try ends without a word.
func TestWithdrawnRepairs(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		s.disk.on(hanging("Prober.Probe"))
		s.deploy(2, "blog")
		for _, kind := range []fsm.RepairKind{fsm.RepairCleanup, fsm.RepairForget} {
			r := s.order(fsm.RepairOrder{Repair: kind, Project: "blog", Deployment: id(1)})
			pass(time.Second)
			if r = s.repair(r.ID); r.Attempt != 1 || r.State != fsm.StepPending {
				t.Errorf("repair %+v", r)
			}
		}
		s.stop()
		s.disk.on(nil)
		s.start()
		pass(time.Second)
		s.want(2, fsm.StatusActive)
	})
}

// An order of a kind a later version gives fails with what to do; it is not for this one to say that it is done.
func TestUnknownRepair(t *testing.T) {
	a := New(Config{Node: "n1"})
	err := a.repair(context.Background(), &fsm.Repair{Kind: "dance"}, &fsm.RepairReport{})
	if errs.CodeOf(err) != errs.UnknownCommand || errs.From(err).Hint == "" {
		t.Errorf("error %v", err)
	}
}

func TestRefusedRepairReport(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.on(func(cmd fsm.Command) error {
			if cmd.Kind == "repair.report" {
				return errs.New(errs.TooLarge, "no")
			}
			return nil
		}, nil)
		s.disk.on(hanging("Blobs.Ensure"))
		s.disk.set(func() { s.disk.remote[digestOf([]byte("x"))] = true })
		r := s.order(fsm.RepairOrder{Repair: fsm.RepairFetchBlob, Digest: digestOf([]byte("x"))})
		s.stop() // ends a repair that hangs
		s.disk.on(nil)
		go s.start()
		s.on(func(cmd fsm.Command) error { s.on(nil, nil); return errs.New(errs.TooLarge, "no") }, nil)
		pass(time.Second)
		s.wantDone(r)
		if !strings.Contains(s.log.String(), "a repair's report was refused") {
			t.Error("nothing is said")
		}
	})
}

// Repairs that hung, or waited for their next attempt, once took the places of the steps of deployments.
func TestRepairsDoNotHoldUpDeployments(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.on(hanging("Blobs.Drop"))
		for i := range 50 {
			s.must(fsm.RepairOrder{Repair: fsm.RepairDropBlob, Node: "n1", Digest: digestOf(fmt.Append(nil, i))})
		}
		pass(dropDelay)
		s.deploy(1, "shop")
		pass(time.Second)
		s.want(1, fsm.StatusActive)
	})
}
