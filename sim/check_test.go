package sim

import (
	"fmt"
	"slices"
	"time"

	"kontiki/fsm"
)

// patience is how long after everything healed all work must be done; ended is how long deployments may take of it.
const (
	patience = 3 * time.Minute
	ended    = time.Minute
)

// settle waits until nothing is under way any more.
func (w *world) settle() {
	healed := time.Now()
	limit := ended
	if w.settings().Queue == "all" {
		limit = 5 * ended // they have queued up, and run one after the other
	}
	w.until(limit, "every deployment is terminal", w.running)
	w.tally.most("most seconds to settle", int(time.Since(healed).Seconds()))
	time.Sleep(70 * time.Second) // the leader makes a full pass each minute
	w.until(patience, "nothing is left to repair", w.unrepaired)
	w.until(patience, "all nodes are at one index", w.apart)
}

// prove has one more deployment made, when nothing fails any more: it must become active, everywhere.
func (w *world) prove() {
	for _, n := range w.nodes {
		n.disk.mu.Lock()
		n.disk.calm = true
		n.disk.mu.Unlock()
	}
	content := []byte("the last one")
	for _, n := range w.nodes {
		n.disk.put(digestOf(content), content)
	}
	id := fsm.NewID()
	w.propose(fsm.DeploymentCreate{ID: id, Project: "site-0", Create: true, Spec: fsm.DefaultSpec(), Nodes: []string{"n1"},
		Source: fsm.Source{Type: fsm.SourceUpload, Digest: digestOf(content), Size: 1, Format: "tar"}})
	w.until(ended, "a last deployment is active everywhere", func() string {
		d := w.nodes[0].fsm.State().Deployment(id)
		if d.Status == fsm.StatusActive && len(d.Instances) == len(w.nodes) {
			return w.unrepaired()
		}
		return fmt.Sprintf("it is %s in %s, on %v", d.Status, d.Phase, d.Instances)
	})
	time.Sleep(10 * time.Second) // current follows a moment later
	w.until(patience, "all nodes are at one index", w.apart)
}

// running says which deployments have not ended.
func (w *world) running() string {
	s := w.nodes[0].fsm.State()
	if s.Cluster() == nil {
		return "n1 has no state yet"
	}
	for _, status := range []fsm.Status{fsm.StatusQueued, fsm.StatusRunning} {
		for d := range s.DeploymentsIn(status) {
			return fmt.Sprintf("deployment %s is %s in %s, attempt %d, builder %s, targets %v, steps %+v", d.ID, d.Status, d.Phase, d.Attempt,
				d.Builder, d.Targets, d.Steps)
		}
	}
	return w.apart()
}

func (w *world) unrepaired() string {
	for _, n := range w.nodes {
		for r := range w.nodes[0].fsm.State().PendingRepairs(n.id) {
			return fmt.Sprintf("%+v", r)
		}
	}
	return w.running()
}

func (w *world) apart() string {
	first := w.nodes[0].fsm.Applied()
	for _, n := range w.nodes[1:] {
		if at := n.fsm.Applied(); at != first {
			return fmt.Sprintf("n1 is at %d, %s at %d", first, n.id, at)
		}
	}
	return ""
}

// check checks what must hold in the end.
func (w *world) check(c *clients) {
	s := w.nodes[0].fsm.State()
	for _, n := range w.nodes[1:] {
		if a, b := hashOf(w.nodes[0].fsm), hashOf(n.fsm); a != b && n.fsm.Applied() == w.nodes[0].fsm.Applied() {
			w.t.Errorf("seed %d: the states of n1 and %s differ", w.seed, n.id)
		}
	}
	w.checkWrites(s, c)
	for _, n := range w.nodes {
		w.checkDisk(s, n)
	}
	for b := range s.Blobs() {
		for _, holder := range w.nodes {
			if slices.Contains(b.Nodes, holder.id) && !holder.disk.has(b.Digest) {
				w.t.Errorf("seed %d: %s is said to hold %s and does not", w.seed, holder.id, b.Digest)
			}
		}
	}
	for d := range s.Deployments("") {
		w.tally.count(string(d.Status))
	}
}

// checkWrites: what was acknowledged is there, once.
func (w *world) checkWrites(s *fsm.State, c *clients) {
	for key, index := range c.acked {
		if at := w.book.applied[key]; len(at) != 1 || at[0] != index {
			w.t.Errorf("seed %d: write %s was acknowledged at %d and took effect at %v", w.seed, key, index, at)
		}
	}
	for key, at := range w.book.applied {
		if len(at) != 1 {
			w.t.Errorf("seed %d: command %s took effect at %v", w.seed, key, at)
		}
	}
	for name, want := range c.metadata {
		p := s.Project(name)
		if p == nil || fmt.Sprint(p.Metadata) != fmt.Sprint(want) {
			w.t.Errorf("seed %d: project %s is %+v, its metadata should be %v", w.seed, name, p, want)
		}
	}
	for id, project := range c.deployed {
		if d := s.Deployment(id); d == nil || d.Project != project {
			w.t.Errorf("seed %d: deployment %s of %s was acknowledged and is not there", w.seed, id, project)
		}
	}
}

// checkDisk: a node has the releases that the state says it serves, and no others; current names the active one.
func (w *world) checkDisk(s *fsm.State, n *node) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	served := map[string]bool{}
	for d := range s.Deployments("") {
		if !d.Serves(n.id) {
			continue
		}
		served[d.Project] = true
		if !n.disk.releases[[2]string{d.Project, d.ID}] {
			w.t.Errorf("seed %d: %s is said to serve %s of %s, %s, and has not all of it", w.seed, n.id, d.ID, d.Project, d.Status)
		}
		if d.Status == fsm.StatusActive && n.disk.current[d.Project] != d.ID {
			w.t.Errorf("seed %d: on %s current of %s names %q, active is %s", w.seed, n.id, d.Project, n.disk.current[d.Project], d.ID)
		}
	}
	for key := range n.disk.releases {
		if d := s.Deployment(key[1]); d == nil || !d.Serves(n.id) {
			w.t.Errorf("seed %d: %s has an orphan release %s of %s: %+v", w.seed, n.id, key[1], key[0], d)
		}
	}
	for project := range n.disk.servers {
		if !served[project] {
			w.t.Errorf("seed %d: %s has an orphan server of %s", w.seed, n.id, project)
		}
	}
}
