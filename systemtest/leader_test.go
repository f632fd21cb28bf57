package systemtest

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
)

// writer makes one project after the other through one node, with nobody to try again.
type writer struct {
	through  *node
	accepted []string        // names of projects that were answered with 201
	unknown  []string        // of those whose outcome the answer left open
	refused  map[string]bool // of those that were refused: they must not be there
	slowest  time.Duration
}

// writers keep writing until they are stopped.
type writers struct {
	all  []*writer
	quit chan struct{}
	done sync.WaitGroup
}

// write starts so many writers for each of the nodes.
func (c *cluster) write(t *testing.T, each int, nodes ...*node) *writers {
	t.Helper()
	ws := &writers{quit: make(chan struct{})}
	for i := range each * len(nodes) {
		w := &writer{through: nodes[i%len(nodes)], refused: map[string]bool{}}
		ws.all = append(ws.all, w)
		ws.done.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for k := 0; ; k++ {
				select {
				case <-ws.quit:
					return
				case <-tick.C:
					w.create(c, fmt.Sprintf("w%d-%d", i, k))
				}
			}
		})
	}
	t.Cleanup(ws.stop)
	return ws
}

func (ws *writers) stop() {
	select {
	case <-ws.quit:
	default:
		close(ws.quit)
	}
	ws.done.Wait()
}

func (w *writer) create(c *cluster, name string) {
	began := time.Now()
	a, err := c.once(w.through, http.MethodPost, "/api/projects", "key-"+name, fmt.Sprintf(`{"name":%q}`, name))
	w.slowest = max(w.slowest, time.Since(began))
	switch {
	case err == nil && a.status == http.StatusCreated:
		w.accepted = append(w.accepted, name)
	case err == nil && a.status < 500:
		w.refused[name] = true
	default:
		w.unknown = append(w.unknown, name)
	}
}

// sum gives how many writes ended how, and the longest that one took.
func (ws *writers) sum() (accepted, unknown, refused int, slowest time.Duration) {
	for _, w := range ws.all {
		accepted, unknown, refused = accepted+len(w.accepted), unknown+len(w.unknown), refused+len(w.refused)
		slowest = max(slowest, w.slowest)
	}
	return accepted, unknown, refused, slowest
}

// check makes sure that every write that was acknowledged was done, no write that was refused was, and none twice, by
// every node's own account.
func (ws *writers) check(t *testing.T, c *cluster) {
	t.Helper()
	for _, n := range c.nodes {
		one := c.client(t, n)
		one.Observe(c.latest(t))
		there := map[string]bool{}
		for p, err := range client.All(func(l client.List) (api.Page[fsm.Project], error) { return one.Projects(t.Context(), l) }) {
			if err != nil {
				t.Fatal(err)
			}
			there[p.Name] = true
		}
		for _, w := range ws.all {
			for _, name := range w.accepted {
				if !there[name] {
					t.Errorf("project %s was acknowledged by node %s and is not there on node %s", name, w.through.name, n.name)
				}
			}
			for name := range w.refused {
				if there[name] {
					t.Errorf("project %s was refused by node %s and is there on node %s", name, w.through.name, n.name)
				}
			}
		}
	}
	done := map[string]int{}
	all := c.client(t)
	for a, err := range client.All(func(l client.List) (api.Page[fsm.Audit], error) { return all.Audit(t.Context(), l) }) {
		if err != nil {
			t.Fatal(err)
		}
		if a.Action == (fsm.ProjectCreate{}).Kind() && a.Refused == "" {
			done[a.Object]++
		}
	}
	for name, times := range done {
		if times != 1 {
			t.Errorf("project %s was made %d times", name, times)
		}
	}
}

// latest gives a log index that covers everything acknowledged so far.
func (c *cluster) latest(t *testing.T) uint64 {
	t.Helper()
	h, err := c.client(t).Hashes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h.Index
}

// awaitProgress waits until so many more log entries are committed.
func (c *cluster) awaitProgress(t *testing.T, more uint64) {
	t.Helper()
	all := c.client(t)
	var start uint64
	await(t, "writes go on", 20*time.Second, func() error {
		s, err := all.Status(t.Context())
		if err != nil {
			return err
		}
		if start == 0 {
			start = s.Commit
		}
		if s.Commit < start+more {
			return fmt.Errorf("the commit index is %d, was %d", s.Commit, start)
		}
		return nil
	})
}

func TestALeaderThatStopsHandsOver(t *testing.T) {
	c := startCluster(t, 3, options{})
	leader := c.leader(t)
	ws := c.write(t, 2, c.others(leader)...)
	c.awaitProgress(t, 50)
	leader.stop(t)
	next := c.leader(t)
	c.awaitProgress(t, 50)
	ws.stop()
	leader.start(t)
	c.awaitMembers(t)
	accepted, unknown, refused, slowest := ws.sum()
	t.Logf("from %s to %s: %d writes accepted, the slowest in %s", leader.name, next.name, accepted, slowest)
	if unknown+refused > 0 {
		t.Errorf("%d writes of unknown outcome and %d refused through the nodes that stayed", unknown, refused)
	}
	ws.check(t, c)
	c.awaitEqual(t)
}

func TestAKilledLeaderLosesNoWrite(t *testing.T) {
	c := startCluster(t, 3, options{})
	ws := c.write(t, 2, c.nodes...)
	for range 3 {
		c.awaitProgress(t, 50)
		leader := c.leader(t)
		leader.kill(t)
		c.awaitProgress(t, 50)
		leader.start(t)
		c.awaitReady(t, leader)
	}
	ws.stop()
	accepted, unknown, refused, slowest := ws.sum()
	t.Logf("%d writes accepted, %d of unknown outcome, the slowest in %s", accepted, unknown, slowest)
	if refused > 0 {
		t.Errorf("%d writes refused", refused)
	}
	ws.check(t, c)
	c.awaitEqual(t)
}

// While the leader does not run, another one takes over; afterwards the old one finds that out before it does harm.
func TestAPausedLeaderDoesNothingOfItsOldTerm(t *testing.T) {
	const point = "reconcile.commit.before"
	w := newWorld(t, options{env: func(n *node) []string { return n.faultEnv(t, map[string]string{point: "hold"}) }})
	old := w.leader(t)
	before, err := w.client(t, old).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ws := w.write(t, 2, w.nodes...)
	w.awaitProgress(t, 50)

	// The old leader has decided to start the deployment and is stopped just before it proposes that.
	version := w.next()
	w.users.allow(w.version, version)
	old.arm(t, point)
	p := w.deploy(t, w.others(old)[0], order{project: mainProject, version: version})
	old.awaitFired(t, point)
	old.pause(t)
	d := p.end(t)
	w.expect(t, d, fsm.StatusActive)
	w.version = version
	w.awaitState(t, old, fsm.NodeAway)
	w.awaitProgress(t, 50)
	old.touch(t, point, "release")
	old.resume(t)
	w.awaitMembers(t)
	ws.stop()

	for _, s := range d.Steps {
		if s.Term <= before.Term {
			t.Errorf("step %s on node %s is of term %d, which ended", s.Phase, s.Node, s.Term)
		}
	}
	again, err := w.client(t).Deployment(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	checkHistory(t, again)
	ws.check(t, w.cluster)
	w.settledAmong(t, ws)
}

// settledAmong is check for a cluster that has the projects of writers besides.
func (w *world) settledAmong(t *testing.T, ws *writers) {
	t.Helper()
	accepted, unknown, refused, slowest := ws.sum()
	t.Logf("%d writes accepted, %d of unknown outcome, %d refused, the slowest in %s", accepted, unknown, refused, slowest)
	if refused > 0 {
		t.Errorf("%d writes refused", refused)
	}
	w.check(t)
}

func TestANodeWithoutMajoritySaysSo(t *testing.T) {
	w := newWorld(t, options{})
	alone, others := w.nodes[0], w.nodes[1:]
	for _, n := range others {
		n.pause(t)
	}
	await(t, "the node that is alone says that it has no leader", 20*time.Second, func() error {
		a, err := w.once(alone, http.MethodGet, "/readyz", "", "")
		if err != nil {
			return err
		}
		if a.status != http.StatusServiceUnavailable || a.code != errs.NoLeader || a.header.Get("Retry-After") == "" {
			return fmt.Errorf("%d %s, Retry-After %q", a.status, a.code, a.header.Get("Retry-After"))
		}
		return nil
	})
	a, err := w.once(alone, http.MethodPost, "/api/projects", "alone", `{"name":"alone"}`)
	if err != nil || a.status != http.StatusServiceUnavailable || a.code != errs.NoLeader || a.header.Get("Retry-After") == "" {
		t.Errorf("a write is answered by %d %s, Retry-After %q, %v", a.status, a.code, a.header.Get("Retry-After"), err)
	}
	if a, err = w.once(alone, http.MethodGet, "/api/projects/"+mainProject, "", ""); err != nil || a.status != http.StatusOK || a.header.Get(api.HeaderLeader) != "" {
		t.Errorf("a read is answered by %d, known leader %q, %v", a.status, a.header.Get(api.HeaderLeader), err)
	}
	if status, body, err := fetch(noKeepAlive, alone, host(mainProject)); err != nil || status != http.StatusOK || body != w.version {
		t.Errorf("a user is answered by %d %q, %v", status, body, err)
	}
	for _, n := range others {
		n.resume(t)
	}
	w.awaitReady(t, w.nodes...)
	w.awaitMembers(t)
	if a, err = w.once(alone, http.MethodPost, "/api/projects", "alone", `{"name":"alone"}`); err != nil || a.status != http.StatusCreated {
		t.Errorf("the same write, repeated with a majority, is answered by %d %s, %v", a.status, a.code, err)
	}
	w.check(t)
}
