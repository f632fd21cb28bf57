package systemtest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontiki/fsm"
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
	w.nodes[0].awaitMark(t, "artifact.remove.after", "reached") // a blob is dropped some time after nothing refers to it
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

// cells plays, for every point that an upload deployment reaches, its scenario twice: the dead come back at once, and
// only when the deployment has ended without them. strike makes the blow.
func (w *world) cells(t *testing.T, strike func(t *testing.T, point string) blow) {
	played := 0
	for _, point := range uploadPoints(t) {
		for _, when := range []string{"back at once", "back late"} {
			if when == "back late" && always(point) {
				continue
			}
			ok := t.Run(point+"/"+when, func(t *testing.T) {
				w.depose(t, w.nodes[0])
				b := strike(t, point)
				b.late = when == "back late"
				scenarioFor(point)(t, w, b)
				w.check(t)
			})
			if !ok {
				t.Fatalf("the cluster is not as it should be after %s: the points after it were not tried", point)
			}
			played++
		}
	}
	t.Logf("%d cells", played)
}

func TestKillTheExecutorAtEveryFaultPoint(t *testing.T) {
	w := newArmedWorld(t, func(string) string { return "kill" })
	w.cells(t, func(t *testing.T, point string) blow {
		victim := w.nodes[0]
		if onLeader(point) {
			victim = w.leader(t)
		}
		return killAt(t, victim, point)
	})
}

func TestKillTheLeaderAtEveryFaultPoint(t *testing.T) {
	w := newArmedWorld(t, func(point string) string {
		if diesItself(point) {
			return "kill"
		}
		return "hold"
	})
	w.cells(t, func(t *testing.T, point string) blow {
		executor, leader := w.nodes[0], w.leader(t)
		b := killAt(t, leader, point)
		if !diesItself(point) {
			b = killWhileAt(t, executor, leader, point)
		}
		b.executor = executor
		return b
	})
}

// newArmedWorld makes a world whose nodes can be armed at every point of the sources.
func newArmedWorld(t *testing.T, action func(point string) string) *world {
	t.Helper()
	actions := map[string]string{}
	for _, p := range allPoints(t) {
		actions[p] = action(p)
	}
	return newWorld(t, options{settings: hasty, env: func(n *node) []string { return n.faultEnv(t, actions) }})
}

// killAt makes the blow in which a node dies at a point.
func killAt(t *testing.T, victim *node, point string) blow {
	return blow{executor: victim,
		arm:  func() { victim.arm(t, point) },
		land: func() { victim.awaitFired(t, point); victim.awaitEnd(t, 10*time.Second) },
		heal: func() { victim.start(t) },
	}
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

// The leader dies, and so does the node that is to elect the next one, while it writes down its vote.
func TestKillAVoterInTheElection(t *testing.T) {
	w := newArmedWorld(t, func(string) string { return "kill" })
	w.users.patient() // two of three are dead for a while
	for _, point := range []string{"cluster.term.before", "cluster.term.after"} {
		t.Run(point, func(t *testing.T) {
			voter := w.nodes[0]
			w.depose(t, voter)
			leader := w.leader(t)
			b := killAt(t, voter, point)
			redeploy(t, w, blow{executor: voter, arm: b.arm,
				land: func() { leader.kill(t); b.land() },
				heal: func() { voter.start(t); leader.start(t) },
			})
			w.check(t)
		})
	}
}

// The leader dies while it takes in a new node: the next one goes on with it.
func TestKillTheLeaderWhileANodeJoins(t *testing.T) {
	w := newArmedWorld(t, func(string) string { return "kill" })
	for i, point := range []string{"cluster.members.before", "cluster.members.after"} {
		t.Run(point, func(t *testing.T) {
			leader := w.leader(t)
			name := fmt.Sprintf("n%d", 4+i)
			joiner := w.addNode(t, filepath.Join(filepath.Dir(leader.dir), name), name)
			w.nodes = w.nodes[:len(w.nodes)-1] // it counts from when it is there
			leader.arm(t, point)
			w.join(t, joiner)
			joiner.plant(t, mainProject)
			joiner.start(t)
			leader.awaitFired(t, point)
			leader.awaitEnd(t, 10*time.Second)
			w.nodes = append(w.nodes, joiner)
			w.awaitReady(t, joiner)
			leader.start(t)
			w.check(t)
		})
	}
}

// All nodes lose their power in the middle of a deployment: it goes on when they are back.
func TestKillAllNodesAtOnce(t *testing.T) {
	w := newArmedWorld(t, func(string) string { return "kill" })
	for _, point := range []string{"agent.building.after", "agent.copying_files.before", "agent.health_check.before", "static.current.flip"} {
		t.Run(point, func(t *testing.T) {
			w.users.allow() // nobody can be served, so nobody asks
			executor := w.nodes[0]
			b := killAt(t, executor, point)
			version := w.next()
			b.arm()
			p := w.deploy(t, executor, order{project: mainProject, version: version})
			b.land()
			for _, n := range w.others(executor) {
				n.kill(t)
			}
			for _, n := range w.nodes {
				n.start(t)
			}
			w.expect(t, p.end(t), fsm.StatusActive)
			w.version = version
			w.awaitReady(t, w.nodes...)
			w.users.allow(version)
			w.check(t)
		})
	}
}
