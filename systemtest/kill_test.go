package systemtest

import (
	"slices"
	"strings"
	"testing"
)

// settings let the leader notice soon that a node is gone.
var hasty = map[string]any{"node_away": "1s", "keep": 2}

func TestEveryFaultPointIsListedAndReached(t *testing.T) {
	w := newWorld(t, options{settings: hasty, env: func(n *node) []string {
		return n.faultEnv(t, nil)
	}})
	for _, play := range []scenario{redeploy, firstVersion, failing, dropping, returning} {
		w.depose(t, w.nodes[0])
		play(t, w, blow{executor: w.nodes[0], arm: func() {}, land: func() {}, heal: func() {}})
		w.check(t)
	}
	reached := map[string]bool{}
	for _, n := range w.nodes {
		for point := range n.reached(t) {
			reached[point] = true
		}
	}
	tests := testLiterals(t)
	for _, point := range allPoints(t) {
		test := coveredBy(point)
		switch {
		case test == "" && !reached[point]:
			t.Errorf("%s was not reached; say in covered which test reaches it, or add a scenario", point)
		case test != "" && reached[point]:
			t.Errorf("%s is reached by an upload deployment: take it out of covered", point)
		case test != "" && !slices.Contains(tests[test], point):
			t.Errorf("%s is said to be covered by %s, which does not name it", point, test)
		}
	}
	t.Logf("%d points reached", len(reached))
}

// onLeader reports whether it is the leader that comes by the point.
func onLeader(point string) bool { return strings.HasPrefix(point, "reconcile.") }

func TestKillTheExecutorAtEveryFaultPoint(t *testing.T) {
	points := uploadPoints(t)
	actions := map[string]string{}
	for _, p := range points {
		actions[p] = "kill"
	}
	w := newWorld(t, options{settings: hasty, env: func(n *node) []string { return n.faultEnv(t, actions) }})
	for i, point := range points {
		ok := t.Run(point, func(t *testing.T) {
			w.depose(t, w.nodes[0])
			victim := w.nodes[0]
			if onLeader(point) {
				victim = w.leader(t)
			}
			scenarioFor(point)(t, w, killAt(t, victim, point, i%2 == 1))
			w.check(t)
		})
		if !ok {
			t.Fatalf("the cluster is not as it should be after %s: the points after it were not tried", point)
		}
	}
	t.Logf("%d cells", len(points))
}

// killAt makes the blow in which a node dies at a point.
func killAt(t *testing.T, victim *node, point string, late bool) blow {
	return blow{executor: victim, late: late,
		arm:  func() { victim.arm(t, point) },
		land: func() { victim.awaitFired(t, point); victim.awaitEnd(t, 10e9) },
		heal: func() { victim.start(t) },
	}
}

func TestKillTheLeaderAtEveryFaultPoint(t *testing.T) {
	points := uploadPoints(t)
	actions := map[string]string{}
	for _, p := range points {
		actions[p] = "hold"
		if diesItself(p) {
			actions[p] = "kill"
		}
	}
	w := newWorld(t, options{settings: hasty, env: func(n *node) []string { return n.faultEnv(t, actions) }})
	for i, point := range points {
		ok := t.Run(point, func(t *testing.T) {
			w.depose(t, w.nodes[0])
			leader, late := w.leader(t), i%2 == 0
			b := killAt(t, leader, point, late)
			if !diesItself(point) {
				b = killWhileAt(t, w.nodes[0], leader, point)
				b.late = late
			}
			b.executor = w.nodes[0]
			scenarioFor(point)(t, w, b)
			w.check(t)
		})
		if !ok {
			t.Fatalf("the cluster is not as it should be after %s: the points after it were not tried", point)
		}
	}
	t.Logf("%d cells", len(points))
}

// diesItself reports whether the leader comes by the point: then it is killed right there.
func diesItself(point string) bool {
	return onLeader(point) || strings.HasPrefix(point, "cluster.store.")
}

// killWhileAt makes the blow in which the leader dies while the executor is held at a point.
func killWhileAt(t *testing.T, executor, leader *node, point string) blow {
	return blow{executor: executor,
		arm:  func() { executor.arm(t, point) },
		land: func() { executor.awaitFired(t, point); leader.kill(t); executor.touch(t, point, "release") },
		heal: func() { leader.start(t) },
	}
}
