package agent

import (
	"context"
	"errors"
	"strings"
	"testing"

	"kontiki/errs"
	"kontiki/fsm"
)

// damaged is a function of its own for its name to be in the stack.
func damaged(cause error) error {
	return errs.New(errs.InvalidArchive, "the archive is damaged: %w", cause).WithHint("pack it again")
}

// An error that another node or a library made has no stack of ours: it is where the step gave up.
func TestForeignFailureHasAStack(t *testing.T) {
	for name, err := range map[string]error{"of a library": errors.New("no such device"), "of another node": &errs.Error{Code: errs.Internal, Message: "a defect"}} {
		t.Run(name, func(t *testing.T) {
			onStage(t, nil, func(s *stage) {
				s.disk.failing("Sites.Manifest", 1, err)
				s.deploy(1, "blog")
				if f := s.failed(1, errs.Internal); !strings.Contains(f.Stack, "kontiki/agent.(*Agent).runStep (steps.go:") {
					t.Errorf("the stack is %q", f.Stack)
				}
			})
		})
	}
}

// A failure says what failed where and why, and what was last written about it; the next attempt starts afresh.
func TestFailureIsReported(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		root := errors.New("block 7 is unreadable")
		s.disk.failing("Sites.Manifest", 1, damaged(root))
		s.deploy(1, "blog")
		f := s.failed(1, errs.InvalidArchive)
		if f.Transient || f.Phase != fsm.PhaseBuilding || f.Node != "n1" || f.Hint != "pack it again" {
			t.Errorf("failure %+v", f)
		}
		if n := len(f.Causes); n != 3 || f.Causes[2] != root.Error() || f.Message != "read the uploaded archive: the archive is damaged: block 7 is unreadable" || f.Causes[0] != f.Message {
			t.Errorf("message %q, causes %q", f.Message, f.Causes)
		}
		if f.LogTail[0] != "started building" || !strings.Contains(f.LogTail[len(f.LogTail)-1], "damaged") || !strings.HasPrefix(f.Stack, "kontiki/agent.damaged (steplog_test.go:") {
			t.Errorf("log tail %q, stack %q", f.LogTail, f.Stack)
		}
		s.retry(1)
		s.want(1, fsm.StatusActive)
	})
}

func TestPanicGivesItsStack(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.disk.on(func(_ context.Context, call string) error {
			if call == "Sites.EnsureRelease" {
				panic("index out of range")
			}
			return nil
		})
		s.deploy(1, "blog")
		f := s.failed(1, errs.Internal)
		if f.Transient || f.Message != "panic: index out of range" || !strings.Contains(f.Stack, "TestPanicGivesItsStack") || strings.Contains(f.Stack, "/agent/") {
			t.Errorf("failure %+v", f)
		}
		s.disk.on(nil)
		s.deploy(2, "shop") // the agent and its locks live on
		s.want(2, fsm.StatusActive)
		s.retry(1)
		s.want(1, fsm.StatusActive)
	})
}
