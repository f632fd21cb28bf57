package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"strings"

	"kontiki/errs"
	"kontiki/fsm"
)

var errCut = errs.New(errs.NoLeader, "nobody leads")

// served is what a project whose one release is served has on the disk.
func served(n int, project string) []string {
	return []string{"current " + project + "=" + id(n), "release " + project + "/" + id(n), "server " + project, "webroot " + project}
}

func TestUploadDeployment(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "blog")
		d := s.want(1, fsm.StatusActive)
		s.wantDisk(served(1, "blog")...)
		if d.Artifact.Content != d.Source.Digest || d.Artifact.Manifest != digestOf([]byte("manifest")) || d.Artifact.Files != 2 {
			t.Errorf("artifact %+v", d.Artifact)
		}
		if d.PhaseMetadata["files"] != "2" || d.PhaseMetadata["kind"] != "static" || d.Instances[0].Endpoint != "fake:80" {
			t.Errorf("metadata %v, instances %v", d.PhaseMetadata, d.Instances)
		}
		for _, b := range []string{d.Artifact.Content, d.Artifact.Manifest} {
			if blob := s.f.State().Blob(b); blob == nil || len(blob.Nodes) != 1 {
				t.Errorf("blob %s: %+v", b, blob)
			}
		}
		s.disk.set(func() {
			if len(s.disk.logs) != 6 {
				t.Errorf("%d logs, want one for each of six phases", len(s.disk.logs))
			}
		})
		if log := peek(s.disk, s.disk.logs, id(1)+"/building-1").String(); !strings.Contains(log, " info a static site of 2 files, 20 bytes\n") {
			t.Errorf("the log of building is %q", log)
		}
	})
}

// Wherever the agent dies, a new one over the same disk goes on: before a phase's report, and after the report whose
// answer it never got. So each Ensure is made twice, and the second time is no different.
func TestRestartInEveryPhase(t *testing.T) {
	for _, phase := range []fsm.Phase{fsm.PhasePullingSource, fsm.PhaseBuilding, fsm.PhaseCopyingFiles, fsm.PhaseCreatingSymlinks,
		fsm.PhaseUpdatingRoutes, fsm.PhaseHealthCheck} {
		for _, reported := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s reported %v", phase, reported), func(t *testing.T) {
				onStage(t, nil, func(s *stage) { restartIn(s, phase, reported) })
			})
		}
	}
}

func restartIn(s *stage, phase fsm.Phase, reported bool) {
	var over atomic.Bool // nothing gets through any more
	s.on(func(cmd fsm.Command) error {
		here := s.f.State().Deployment(id(1)).Phase == phase
		if cmd.Kind == "step.report" && (over.Load() || here && !reported) {
			return errCut
		}
		over.Store(here)
		return nil
	}, func(fsm.Command) error {
		if over.Load() {
			return errCut
		}
		return nil
	})
	s.deploy(1, "blog")
	pass(time.Second)
	if d := s.get(1); reported && d.Phase.Order() != phase.Order()+1 || !reported && d.Phase != phase {
		s.t.Fatalf("it is in %s, and died in %s", d.Phase, phase)
	}
	s.stop()
	s.on(nil, nil)
	s.start()
	synctest.Wait()
	s.want(1, fsm.StatusActive)
	s.wantDisk(served(1, "blog")...)
}

// Every call of the outside can fail; each makes its step fail with the code it gave, and a retry succeeds.
func TestEveryCallMayFail(t *testing.T) {
	for _, call := range []string{"Blobs.Ensure", "Blobs.Open", "Sites.Manifest", "Blobs.Put", "Sites.EnsureRelease", "Engine.EnsureServer",
		"Sites.EnsureWebroot", "Prober.Routed"} {
		t.Run(call, func(t *testing.T) {
			onStage(t, nil, func(s *stage) {
				s.disk.failing(call, 1, errs.New(errs.DiskFull, "no room"))
				s.deploy(1, "blog")
				if f := s.failed(1, errs.DiskFull); !f.Transient {
					t.Errorf("failure %+v", f)
				}
				s.retry(1)
				s.want(1, fsm.StatusActive)
			})
		})
	}
}

// The same in the phases where more than one is opened or fetched.
func TestTheReleasesBlobsMayBeMissing(t *testing.T) {
	for n, missing := range []string{"Blobs.Ensure", "Blobs.Open"} {
		for nth := range 2 {
			t.Run(fmt.Sprint(missing, nth), func(t *testing.T) {
				onStage(t, nil, func(s *stage) {
					s.queue(1, "blog")
					nthCall := int64(2 - n + nth + 1) // after those of pulling and building, which ensure, and building, which opens
					var made atomic.Int64
					s.disk.on(func(_ context.Context, call string) error {
						if call == missing && made.Add(1) == nthCall {
							return errs.New(errs.NotFound, "it is gone")
						}
						return nil
					})
					s.must(fsm.DeploymentStart{ID: id(1), Builder: "n1", Targets: []string{"n1"}})
					s.failed(1, errs.NotFound)
					s.retry(1)
					s.want(1, fsm.StatusActive)
				})
			})
		}
	}
}

// hanging makes a call wait for the end of its context.
func hanging(call string) func(context.Context, string) error {
	return func(ctx context.Context, made string) error {
		if made != call {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

func TestDeadline(t *testing.T) {
	onStage(t, func(s *fsm.Settings) { s.Deadlines[fsm.PhaseCopyingFiles] = 60_000 }, func(s *stage) {
		s.disk.on(hanging("Sites.EnsureRelease"))
		s.deploy(1, "blog")
		pass(59 * time.Second)
		s.want(1, fsm.StatusRunning)
		pass(time.Second)
		if f := s.failed(1, errs.Deadline); !f.Transient || !strings.Contains(f.Message, "longer than 1m0s") || f.Hint == "" {
			t.Errorf("failure %+v", f)
		}
	})
}

// A long step shows every 15 s that it lives; nobody leading for a while does no harm.
func TestHeartbeat(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		end := make(chan struct{})
		s.disk.on(func(_ context.Context, call string) error {
			if call == "Sites.EnsureRelease" {
				<-end
			}
			return nil
		})
		s.deploy(1, "blog")
		before := s.applied()
		at := s.get(1).PhaseUpdatedAt
		pass(time.Minute + time.Second)
		if n := s.applied() - before; n != 4 || s.get(1).PhaseUpdatedAt <= at {
			t.Errorf("%d heartbeats in a minute, updated %d after %d", n, s.get(1).PhaseUpdatedAt, at)
		}
		s.on(func(cmd fsm.Command) error { return errs.New(errs.TooLarge, "no") }, nil)
		pass(time.Minute)
		s.on(nil, nil)
		close(end)
		synctest.Wait()
		s.want(1, fsm.StatusActive)
		if !strings.Contains(s.log.String(), "a heartbeat was refused") {
			t.Error("nothing is said of refused heartbeats")
		}
	})
}

// Cancelling ends the step, without a report. A step that does not listen keeps the cleanup waiting, and what it still
// makes is removed.
func TestCleanupWaitsForACancelledStep(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		end := make(chan struct{})
		s.disk.on(func(_ context.Context, call string) error {
			if call == "Sites.EnsureRelease" {
				<-end // deaf
			}
			return nil
		})
		s.deploy(1, "blog")
		s.must(fsm.DeploymentCancel{ID: id(1)})
		pass(time.Minute)
		if s.disk.count("Sites.Prune") != 0 {
			t.Error("it cleans up beside the step")
		}
		s.disk.on(nil)
		close(end)
		pass(time.Second)
		s.want(1, fsm.StatusCancelled)
		s.wantDisk()
	})
}

func TestCancelEndsAStep(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		var ended atomic.Bool
		s.disk.on(func(ctx context.Context, call string) error {
			if call == "Sites.Manifest" {
				<-ctx.Done()
				ended.Store(true)
				return ctx.Err()
			}
			return nil
		})
		s.deploy(1, "blog")
		s.must(fsm.DeploymentCancel{ID: id(1)})
		pass(time.Second)
		d := s.want(1, fsm.StatusCancelled)
		if !ended.Load() || len(open(s)) != 0 {
			t.Errorf("ended %v, open repairs remain", ended.Load())
		}
		if step := d.Step(fsm.PhaseBuilding, "n1"); step.State != fsm.StepAbandoned || step.Failure != nil {
			t.Errorf("step %+v", step)
		}
	})
}

// A step that only gets its turn when its deployment is over does nothing: the cleanup has been there already.
func TestStepThatComesTooLateDoesNothing(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.queue(1, "blog")
		d := s.get(1)
		a := New(Config{Node: "n1", Replica: s.f, Proposer: s, Blobs: s.disk, Sites: s.disk, Engine: s.disk, Prober: s.disk, Logs: s.disk})
		late := *d
		late.Phase, late.Artifact = fsm.PhaseCopyingFiles, &fsm.Artifact{Content: d.Source.Digest, Manifest: d.Source.Digest}
		st := &step{a: a, d: &late, key: fsm.StepKey{Deployment: d.ID, Phase: late.Phase, Attempt: 1, Node: "n1"}, log: &stepLog{}}
		if _, err := st.attempt(context.Background()); !errors.Is(err, errNotAsked) {
			t.Errorf("the attempt gives %v", err)
		}
		st.key.Deployment = id(9)
		if st.asked() {
			t.Error("a deployment that is not there is asked for")
		}
		s.wantDisk()
	})
}

// Reports wait for a leader for as long as it takes.
func TestReportsSurviveAMissingLeader(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.on(func(fsm.Command) error { return errCut }, nil)
		s.deploy(1, "blog")
		pass(10 * time.Minute)
		s.want(1, fsm.StatusRunning)
		s.on(nil, nil)
		pass(2 * time.Second)
		s.want(1, fsm.StatusActive)
		if n := s.disk.count("Sites.Manifest"); n != 1 {
			t.Errorf("the archive was read %d times", n)
		}
	})
}

// A report that the state machine refuses for what it says makes the step a failed one.
func TestRefusedReportFailsTheStep(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.set(func() { s.disk.held = fsm.Held{Digest: "sha256:nonsense"} })
		s.deploy(1, "blog")
		if f := s.failed(1, errs.BadCommand); f.Phase != fsm.PhaseBuilding {
			t.Errorf("failure %+v", f)
		}
	})
}

// When not even the failure can be reported the node's log says so, and the agent goes on.
func TestFailureThatCannotBeReported(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		var n atomic.Int32
		s.on(func(cmd fsm.Command) error {
			if cmd.Kind == "step.report" && n.Add(1) <= 2 {
				return errs.New(errs.TooLarge, "no")
			}
			return nil
		}, nil)
		s.deploy(1, "blog")
		s.want(1, fsm.StatusActive)
		if !strings.Contains(s.log.String(), "a step's failure cannot be reported") {
			t.Error("nothing is said")
		}
	})
}

func TestHealthCheckRetries(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.failing("Prober.Probe", 2, errs.New(errs.Unhealthy, "503"))
		s.deploy(1, "blog")
		s.want(1, fsm.StatusRunning)
		pass(2 * time.Second)
		s.want(1, fsm.StatusActive)
		s.disk.failing("Prober.Probe", 3, errs.New(errs.Unhealthy, "503"))
		s.deploy(2, "blog")
		pass(2 * time.Second)
		if f := s.failed(2, errs.Unhealthy); !strings.HasPrefix(f.Message, "health check 3 of 3") {
			t.Errorf("failure %+v", f)
		}
		s.want(1, fsm.StatusActive)
	})
}

// Stopping ends a health check between two tries, and a step that waits for its lock.
func TestStopEndsWaiting(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.failing("Prober.Probe", 1, errs.New(errs.Unhealthy, "503"))
		s.deploy(1, "blog")
		s.stop()
		s.want(1, fsm.StatusRunning)
		s.start()
		synctest.Wait()
		s.want(1, fsm.StatusActive)
	})
}

// A log that cannot be made, written or closed fails no step.
func TestLogsThatFail(t *testing.T) {
	for _, call := range []string{"Logs.Create", "log.Write", "log.Close"} {
		t.Run(call, func(t *testing.T) {
			onStage(t, nil, func(s *stage) {
				s.disk.failing(call, 100, errors.New("no room"))
				s.deploy(1, "blog")
				s.want(1, fsm.StatusActive)
				if !strings.Contains(s.log.String(), "a step's log cannot be") {
					t.Error("the node's log says nothing")
				}
			})
		})
	}
}

// Only the last lines of a long log go into a failure, and long texts are cut where a character ends.
func TestTailAndClip(t *testing.T) {
	l := &stepLog{}
	for i := range 30 {
		l.line("info", fmt.Sprint("line ", i))
	}
	if tail := l.lines(); len(tail) != tailLines || tail[0] != "line 10" || tail[19] != "line 29" {
		t.Errorf("tail %q", tail)
	}
	if got := clip("aß", 2); got != "a…" {
		t.Errorf("clipped to %q", got)
	}
}

// What a process made ready itself it does not look at again in the phases that follow; a second attempt does.
func TestLaterPhasesTrustWhatThisProcessDid(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.deploy(1, "shop")
		s.want(1, fsm.StatusActive)
		if n := s.disk.count("Sites.EnsureRelease"); n != 1 {
			t.Errorf("the release was ensured %d times", n)
		}
		s.disk.failing("Sites.EnsureWebroot", 1, errs.New(errs.DiskFull, "no room"))
		s.deploy(2, "shop")
		s.retry(2)
		s.want(2, fsm.StatusActive)
		if n := s.disk.count("Sites.EnsureRelease"); n != 3 {
			t.Errorf("with a second attempt in between the second release was ensured %d times", n-1)
		}
	})
}
