package reconcile

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kontiki/errs"
	"kontiki/fsm"
)

// Whatever has happened and whatever is observed, a plan keeps what checkPlan checks.
func TestEveryPlanHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newHistory(t, rt)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			g.step()
			if rapid.IntRange(0, 3).Draw(rt, "look") == 0 {
				o := g.observe()
				checkPlan(rt, g.w, o, Plan(g.w.f.State(), o))
			}
		}
	})
}

// history lets things happen in a random order; commands that make no sense are refused, as they would be.
type history struct {
	w     *world
	rt    *rapid.T
	nodes []string
	count int
}

func newHistory(t *testing.T, rt *rapid.T) *history {
	settings := fsm.DefaultSettings()
	settings.Builds = rapid.IntRange(1, 2).Draw(rt, "builds")
	settings.Keep = rapid.IntRange(1, 2).Draw(rt, "keep")
	settings.MaxAttempts = rapid.IntRange(1, 3).Draw(rt, "attempts")
	settings.Queue = rapid.SampledFrom([]string{"latest", "all"}).Draw(rt, "queue")
	nodes := []string{"n1", "n2", "n3", "n4"}[:rapid.IntRange(1, 4).Draw(rt, "nodes")]
	return &history{w: newWorld(t, settings, nodes...), rt: rt, nodes: nodes}
}

func (g *history) one(of ...string) string { return rapid.SampledFrom(of).Draw(g.rt, "one") }

func (g *history) node() string { return g.one(g.nodes...) }

func (g *history) some() string {
	return fmt.Sprintf("d%d", rapid.IntRange(1, max(1, g.count)).Draw(g.rt, "deployment"))
}

func (g *history) step() {
	w := g.w
	switch g.one("create", "create", "report", "report", "report", "report", "through", "node", "remove", "left", "blob", "repair", "repaired", "cancel", "delete") {
	case "create":
		g.count++
		replicas := fsm.Replicas(rapid.SampledFrom([]int{-1, 1, 2}).Draw(g.rt, "replicas"))
		if w.f.State().Node(g.nodes[0]) != nil {
			w.create(fmt.Sprintf("d%d", g.count), g.one("blog", "shop", "wiki"), replicas, g.node())
		}
	case "report":
		var failure *fsm.Failure
		if rapid.IntRange(0, 4).Draw(g.rt, "fails") == 0 {
			failure = &fsm.Failure{Code: errs.Unavailable, Message: "no", Transient: rapid.Bool().Draw(g.rt, "transient")}
		}
		if name := g.some(); g.known(name) {
			_ = w.report(name, g.node(), failure) // refused when it has no such step
		}
	case "through":
		if name := g.some(); g.known(name) && w.deployment(name).Status == fsm.StatusRunning {
			w.until(name, fsm.PhaseActive)
		}
	case "node":
		_ = w.try(fsm.NodeStatus{ID: g.node(), State: fsm.NodeState(g.one("ready", "away", "lost"))})
	case "remove":
		_ = w.try(fsm.NodeRemove{ID: g.node()})
	case "left":
		_ = w.try(fsm.NodeLeft{ID: g.node()})
	case "blob":
		_ = w.try(fsm.BlobHeld{Digest: w.digest(g.one("a", "b", "c", "d", "e", "f", "g", "h")), Size: 1, Node: g.node()})
	case "repair":
		_ = w.try(fsm.RepairOrder{Repair: fsm.RepairKind(g.one("place", "cleanup")), Node: g.node(), Project: g.one("blog", "shop"), Deployment: w.id(g.some())})
	case "repaired":
		n := g.node()
		for r := range w.f.State().PendingRepairs(n) {
			_ = w.try(fsm.RepairReport{ID: r.ID, Node: n, Attempt: r.Attempt, Failed: rapid.Bool().Draw(g.rt, "failed"), Instance: fsm.Instance{Node: n}})
			break
		}
	case "cancel":
		_ = w.try(fsm.DeploymentCancel{ID: w.id(g.some())})
	case "delete":
		_ = w.try(fsm.ProjectDelete{Name: g.one("blog", "shop", "wiki")})
	}
}

func (g *history) known(name string) bool { return g.w.f.State().Deployment(g.w.id(name)) != nil }

func (g *history) observe() Observation {
	long := func(what string, choices ...time.Duration) time.Duration {
		return rapid.SampledFrom(choices).Draw(g.rt, what)
	}
	o := Observation{Silent: map[string]time.Duration{}, Idle: map[string]time.Duration{}, InStep: map[StepID]time.Duration{}}
	for _, n := range g.nodes {
		if d := long("silent", 0, 0, 0, 1e9, 4e9, 60e9, -1); d >= 0 {
			o.Silent[n] = d
		}
	}
	for d := range g.w.f.State().DeploymentsIn(fsm.StatusRunning) {
		o.Idle[d.ID] = long("idle", 0, 1e9, 400e9)
		for _, s := range d.Steps {
			o.InStep[StepID{d.ID, s.Phase, s.Node, s.Attempt, s.State}] = long("in step", 0, 1e9, 400e9, 4000e9)
		}
	}
	if rapid.Bool().Draw(g.rt, "scoped") {
		o.Scope = map[string]bool{"blog": true}
	}
	return o
}
