package reconcile

import (
	"context"
	"slices"
	"testing"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// answers is what the nodes of a test say, and who was asked how often.
type answers struct {
	holdings map[string][]Holding
	err      error
	hang     bool
	asked    map[string]int
}

func (s *stage) inventory(ctx context.Context, node string) ([]Holding, error) {
	var hang bool
	var h []Holding
	var err error
	s.set(func() { s.says.asked[node]++; hang, h, err = s.says.hang, s.says.holdings[node], s.says.err })
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h, err
}

// places gives the node's open orders to place something.
func (s *stage) places(node string) []*fsm.Repair {
	return slices.DeleteFunc(orders(s.f.State(), node), func(r *fsm.Repair) bool { return r.Kind != fsm.RepairPlace })
}

func (s *stage) wantOrders(node string, want int) {
	s.t.Helper()
	if open := s.places(node); len(open) != want {
		s.t.Fatalf("%s has %d open orders, want %d: %+v", node, len(open), want, open)
	}
}

// lost makes n2 say that the project's server is gone.
func (s *stage) lost(name string) {
	s.set(func() {
		s.says.holdings = map[string][]Holding{"n2": {{Project: "blog", Deployment: s.id(name), Release: true, Current: true, Webroot: true}}}
	})
}

func (s *stage) activate(name, project string) {
	s.t.Helper()
	s.queue(name, project)
	s.set(func() { s.until(name, fsm.PhaseActive) })
	pass(time.Second)
}

// A server that is gone is noticed with the next full pass, and ordered once.
func TestWhatIsNotWholeIsPlacedAgain(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.activate("d1", "blog")
		pass(time.Minute)
		s.wantOrders("n2", 0)
		s.lost("d1")
		pass(time.Minute + time.Second)
		s.wantOrders("n2", 1)
		s.wantOrders("n1", 0)
		pass(10 * time.Minute)
		s.wantOrders("n2", 1)
		r := s.places("n2")[0]
		if r.Kind != fsm.RepairPlace || r.Deployment != s.id("d1") || r.Reason != "the project's server does not run or is ill" {
			t.Errorf("order %+v", r)
		}
		s.do(fsm.RepairReport{ID: r.ID, Node: "n2", Attempt: 1, Instance: fsm.Instance{Node: "n2"}})
		s.set(func() { s.says.holdings = nil })
		pass(10 * time.Minute)
		s.wantOrders("n2", 0)
	})
}

// A node that fails to answer has said nothing, and one that hangs holds up nobody.
func TestNoAnswerIsNoJudgement(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.activate("d1", "blog")
		s.lost("d1")
		s.set(func() { s.says.err = errs.New(errs.DockerTimeout, "no answer") })
		pass(5 * time.Minute)
		s.wantOrders("n2", 0)
		s.set(func() { s.says.hang = true })
		pass(time.Minute)
		s.activate("d2", "shop")
		s.wantStatus("d2", fsm.StatusActive)
		s.set(func() { s.says.hang, s.says.err = false, nil })
		pass(time.Minute + surveyLimit)
		s.wantOrders("n2", 1)
	})
}

// All that are in contact are asked when a leader begins, soon after one comes back, and then every minute.
func TestWhoIsAsked(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.hush("n3", time.Minute)
		pass(time.Second)
		asked := func(node string) (n int) { s.set(func() { n = s.says.asked[node] }); return n }
		before := asked("n3")
		pass(5 * time.Minute)
		if asked("n3") != before || asked("n1") < 5 {
			t.Errorf("n3, out of contact, was asked %d times; n1 %d times", asked("n3")-before, asked("n1"))
		}
		s.hush("n3", 0)
		pass(time.Second)
		if asked("n3") != before+1 {
			t.Errorf("n3 is back and was asked %d times", asked("n3")-before)
		}
	})
}

// What becomes known while a round is under way is asked for in another one right after.
func TestARoundThatWasWantedFollows(t *testing.T) {
	onStage(t, nil, func(s *stage) {
		s.hush("n3", time.Minute)
		pass(time.Second)
		s.set(func() { s.says.hang = true })
		pass(time.Minute)
		var before int
		s.set(func() { before = s.says.asked["n3"]; s.says.hang = false })
		s.hush("n3", 0)
		pass(surveyLimit + time.Second)
		s.set(func() {
			if s.says.asked["n3"] == before {
				t.Error("n3 came back while the others were asked, and was not asked")
			}
		})
	})
}
