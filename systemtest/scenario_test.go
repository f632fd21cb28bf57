package systemtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"kontiki/client"
	"kontiki/fsm"
)

const mainProject = "site"

// world is a cluster on which one scenario after the other is played, with users who never stop asking for its site.
type world struct {
	*cluster
	users   *prober
	watcher *watcher
	active  map[string]string // by project, the deployment that must be active
	version string            // of the main project
	played  int
	large   int // bytes of the sites' large page
}

// newWorld makes a cluster of three with a first version active and somebody else's files beside ours.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{cluster: startCluster(t, 3, o), active: map[string]string{}, large: o.large}
	w.users = probe(t, w.cluster, mainProject, 2, 15*time.Millisecond)
	w.version = w.next()
	d := w.deploy(t, w.nodes[0], order{project: mainProject, version: w.version}).end(t)
	w.expect(t, d, fsm.StatusActive)
	for _, n := range w.nodes {
		n.plant(t, mainProject)
	}
	w.awaitSettled(t, w.active)
	w.users.allow(w.version)
	w.watcher = watch(t, w.cluster, mainProject, d.ModifyIndex)
	return w
}

func (w *world) next() string {
	w.played++
	return fmt.Sprintf("version %d", w.played)
}

// order is what to deploy.
type order struct {
	project, version string
	how              client.How
}

// placed is a deployment that was ordered and may not be accepted yet.
type placed struct {
	w      *world
	done   chan struct{}
	result fsm.Deployment
	err    error
}

// deploy uploads a version through a node, or the others when it fails, and does not wait for the answer.
func (w *world) deploy(t *testing.T, through *node, o order) *placed {
	t.Helper()
	p := &placed{w: w, done: make(chan struct{})}
	c := w.clientWith(t, client.Config{Patience: 60 * time.Second}, append([]*node{through}, w.others(through)...)...)
	archive := bytes.NewReader(siteWith(t, o.version, w.large))
	o.how.Create = true
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	go func() {
		defer close(p.done)
		defer cancel()
		p.result, p.err = c.Deploy(ctx, client.DeployRequest{Project: o.project, Archive: archive, How: o.how})
	}()
	t.Cleanup(func() { cancel(); <-p.done })
	return p
}

// end waits until the deployment has come to its end, as it must within a minute.
func (p *placed) end(t *testing.T) fsm.Deployment {
	t.Helper()
	<-p.done
	if p.err != nil {
		t.Fatalf("deploy: %v", p.err)
	}
	c := p.w.client(t)
	c.Observe(p.result.ModifyIndex) // a node that was not told yet that it is committed waits until it is
	d := follow(t, c, p.result.ID, 60*time.Second)
	checkHistory(t, d)
	return d
}

// expect fails the test unless the deployment ended so; an active one is remembered as the one that must be.
func (w *world) expect(t *testing.T, d fsm.Deployment, status fsm.Status) {
	t.Helper()
	if d.Status != status {
		t.Fatalf("deployment %s of %s is %s, should be %s; failure %+v", d.ID, d.Project, d.Status, status, d.Failure)
	}
	if status == fsm.StatusActive {
		w.active[d.Project] = d.ID
	}
}

// check makes sure that all is as it should be after a scenario.
func (w *world) check(t *testing.T) {
	t.Helper()
	w.awaitSettled(t, w.active)
	w.users.allow(w.version)
	for _, n := range w.nodes {
		n.untouched(t, mainProject)
		if status, body, err := fetch(noKeepAlive, n, host(mainProject)); err != nil || status != 200 || body != w.version {
			t.Errorf("node %s answers %d %q, %v; should be %q", n.name, status, body, err, w.version)
		}
	}
	w.watcher.check(t)
	w.users.check(t)
}

// blow is what hits the cluster in the course of a scenario.
type blow struct {
	executor *node
	arm      func() // prepares it, just before the deployment is made
	land     func() // waits until the executor is at the point, then does the damage
	heal     func() // brings back who died
	late     bool   // heal only when the deployment has ended without who died
}

// scenario is a way to get a deployment to some fault points.
type scenario func(t *testing.T, w *world, b blow)

// always reports whether a scenario goes the same way however late the dead come back.
func always(point string) bool {
	return strings.HasPrefix(point, "artifact.remove.") || strings.HasPrefix(point, "artifact.fetch.")
}

// scenarioFor gives the scenario that comes by a point.
func scenarioFor(point string) scenario {
	special := map[string]scenario{
		"static.webroot.before": firstVersion, "static.webroot.after": firstVersion,
		"static.remove.before": failing, "static.remove.after": failing,
		"agent.repair.before": failing, "agent.repair.after": failing,
		"artifact.remove.before": dropping, "artifact.remove.after": dropping,
		"artifact.fetch.before": returning, "artifact.fetch.after": returning,
	}
	if s, ok := special[point]; ok {
		return s
	}
	return redeploy
}

// through does the damage while an order is carried out and gives how that ended.
func (b blow) through(t *testing.T, p *placed) fsm.Deployment {
	t.Helper()
	b.land()
	if !b.late {
		b.heal()
		return p.end(t)
	}
	d := p.end(t)
	b.heal()
	return d
}

// redeploy replaces the active version.
func redeploy(t *testing.T, w *world, b blow) {
	version := w.next()
	w.users.allow(w.version, version)
	b.arm()
	d := b.through(t, w.deploy(t, b.executor, order{project: mainProject, version: version}))
	w.expect(t, d, fsm.StatusActive)
	w.version = version
}

// firstVersion makes a project.
func firstVersion(t *testing.T, w *world, b blow) {
	version := w.next()
	b.arm()
	d := b.through(t, w.deploy(t, b.executor, order{project: fmt.Sprintf("site-%d", w.played), version: version}))
	w.expect(t, d, fsm.StatusActive)
}

// failing deploys a version whose health check never passes; all that was made of it is removed.
func failing(t *testing.T, w *world, b blow) {
	w.set(t, "max_attempts", 1)
	b.arm()
	d := b.through(t, w.deploy(t, b.executor, unhealthy(w.next())))
	w.expect(t, d, fsm.StatusFailed)
	w.set(t, "max_attempts", fsm.DefaultSettings().MaxAttempts)
}

func unhealthy(version string) order {
	return order{project: mainProject, version: version, how: client.How{Health: fsm.Health{Path: "/absent.html", Retries: 1}}}
}

func (w *world) set(t *testing.T, name string, value any) {
	t.Helper()
	if _, err := w.client(t).UpdateSettings(t.Context(), map[string]any{name: value}); err != nil {
		t.Fatalf("set %s: %v", name, err)
	}
}

// dropping deploys a version that fails, and makes the leader look for what nothing refers to any more: it does when a
// node's state changes. A node that is to drop a blob lets some seconds pass before it does.
func dropping(t *testing.T, w *world, b blow) {
	w.set(t, "max_attempts", 1)
	w.expect(t, w.deploy(t, b.executor, unhealthy(w.next())).end(t), fsm.StatusFailed)
	w.set(t, "max_attempts", fsm.DefaultSettings().MaxAttempts)
	bystander := w.others(b.executor, w.leader(t))[0]
	bystander.pause(t)
	w.awaitState(t, bystander, fsm.NodeAway)
	bystander.resume(t)
	b.arm()
	b.land()
	b.heal()
}

// awaitState waits until the leader holds this of a node.
func (w *world) awaitState(t *testing.T, n *node, state fsm.NodeState) {
	t.Helper()
	c := w.client(t, w.others(n)...)
	await(t, "node "+n.name+" is "+string(state), 20*time.Second, func() error {
		s, err := c.Status(t.Context())
		if err != nil {
			return err
		}
		for _, p := range s.Peers {
			if p.ID == n.name && p.State != state {
				return fmt.Errorf("it is %s", p.State)
			}
		}
		return nil
	})
}

// returning deploys while a node is dead; when it is back it has to fetch the version.
func returning(t *testing.T, w *world, b blow) {
	version := w.next()
	w.users.allow(w.version, version)
	b.executor.kill(t)
	d := w.deploy(t, w.others(b.executor)[0], order{project: mainProject, version: version}).end(t)
	w.expect(t, d, fsm.StatusActive)
	w.version = version
	b.arm()
	b.executor.start(t)
	b.land()
	b.heal()
}
