package reconcile

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"kontiki/fsm"
)

// rank orders nodes differently for each project (rendezvous hashing), so that projects spread evenly and stay where
// they are when nodes come and go. It takes a hash that mixes well: node names often differ in their last byte only.
func rank(project, node string) uint64 {
	sum := sha256.Sum256([]byte(project + "\x00" + node))
	return binary.BigEndian.Uint64(sum[:])
}

// stays reports whether what the node has counts: not when it is lost or leaving, but when it is merely away.
func stays(n *fsm.Node) bool {
	return n != nil && n.State != fsm.NodeLost && n.State != fsm.NodeLeaving
}

// members counts the nodes that are not leaving.
func (p *planner) members() int {
	n := 0
	for _, node := range p.nodes {
		if node.State != fsm.NodeLeaving {
			n++
		}
	}
	return n
}

// judgePlacement orders nodes to take up active deployments that should run on more nodes than do. The replicas of a
// lost or leaving node count as gone, those of one that is merely away do not.
func (p *planner) judgePlacement() {
	for project := range p.s.Projects("") {
		if p.o.Scope != nil && !p.o.Scope[project.Name] {
			continue
		}
		d := p.s.ActiveOf(project)
		if d == nil || d.Artifact == nil {
			continue
		}
		have := 0
		for _, n := range p.nodes {
			if d.Serves(n.ID) && stays(n) {
				have++
			}
		}
		want := p.members()
		if d.Spec.Replicas != fsm.ReplicasAll {
			want = int(d.Spec.Replicas)
		}
		p.place(d, want-have-p.placing(d))
	}
}

// placing counts the open orders to place the deployment on nodes that can carry them out.
func (p *planner) placing(d *fsm.Deployment) int {
	n := 0
	for _, node := range p.nodes {
		if stays(node) && p.open(node.ID, fsm.RepairPlace, d.ID, "") {
			n++
		}
	}
	return n
}

// place orders up to n further nodes to serve the deployment. One that still has to remove what it made of it before is
// not chosen until it has: the two orders would undo each other.
func (p *planner) place(d *fsm.Deployment, n int) {
	if n <= 0 {
		return
	}
	var free []string
	for _, node := range p.nodes {
		if node.State == fsm.NodeReady && !d.Serves(node.ID) && !p.open(node.ID, fsm.RepairPlace, d.ID, "") &&
			!p.open(node.ID, fsm.RepairCleanup, d.ID, "") {
			free = append(free, node.ID)
		}
	}
	slices.SortStableFunc(free, func(a, b string) int {
		if rank(d.Project, a) < rank(d.Project, b) {
			return -1
		}
		return 1
	})
	for _, node := range free[:min(n, len(free))] {
		p.emit(fsm.RepairOrder{Repair: fsm.RepairPlace, Node: node, Project: d.Project, Deployment: d.ID,
			Reason: "the active deployment is to run here and does not"})
	}
}

// open reports whether the node has such an order that is not done yet.
func (p *planner) open(node string, kind fsm.RepairKind, deployment, digest string) bool {
	for r := range p.s.PendingRepairs(node) {
		if r.Kind == kind && r.Deployment == deployment && r.Digest == digest {
			return true
		}
	}
	return false
}

// judgeRetention removes releases beyond the number to keep, never the active one's.
func (p *planner) judgeRetention(r *removals) {
	for project := range p.s.Projects("") {
		kept := 0
		for d := range p.s.DeploymentsOf(project.Name, 0) {
			if d.Status != fsm.StatusSuperseded && d.Status != fsm.StatusActive {
				continue
			}
			if kept++; kept <= p.settings.Keep || d.ID == project.Active {
				continue
			}
			for _, i := range d.Instances {
				if p.node(i.Node) != nil && !p.open(i.Node, fsm.RepairCleanup, d.ID, "") {
					r.add(i.Node, fsm.RepairOrder{Repair: fsm.RepairCleanup, Node: i.Node, Project: d.Project, Deployment: d.ID,
						Reason: fmt.Sprintf("more than %d newer releases are kept", p.settings.Keep)})
				}
			}
		}
	}
}

// judgeBlobs drops blobs that nothing needs and copies those that too few nodes hold.
func (p *planner) judgeBlobs(r *removals) {
	needed := p.needed()
	for b := range p.s.Blobs() {
		if needed[b.Digest] {
			p.copies(b)
			continue
		}
		for _, n := range b.Nodes {
			if p.ready(n) && !p.open(n, fsm.RepairDropBlob, "", b.Digest) {
				r.add(n, fsm.RepairOrder{Repair: fsm.RepairDropBlob, Node: n, Digest: b.Digest, Reason: "nothing refers to it"})
			}
		}
	}
}

// needed gives the digests that deployments refer to which may still come to serve.
func (p *planner) needed() map[string]bool {
	needed := map[string]bool{}
	for d := range p.s.Deployments("") {
		if d.Status == fsm.StatusFailed || d.Status == fsm.StatusCancelled || d.Status == fsm.StatusSuperseded && len(d.Instances) == 0 {
			continue
		}
		needed[d.Source.Digest] = true
		if d.Artifact != nil {
			needed[d.Artifact.Content], needed[d.Artifact.Manifest] = true, true
		}
	}
	return needed
}

// copies orders further nodes to hold a blob until a majority of the nodes does, not counting lost and leaving ones.
func (p *planner) copies(b *fsm.Blob) {
	have := 0
	for _, n := range b.Nodes {
		if stays(p.node(n)) {
			have++
		}
	}
	want := fsm.Majority(p.members())
	for _, n := range p.nodes {
		if have >= want {
			return
		}
		if slices.Contains(b.Nodes, n.ID) || n.State != fsm.NodeReady {
			continue
		}
		if have++; !p.open(n.ID, fsm.RepairFetchBlob, "", b.Digest) {
			p.emit(fsm.RepairOrder{Repair: fsm.RepairFetchBlob, Node: n.ID, Digest: b.Digest, Reason: "too few nodes hold it"})
		}
	}
}

// removals collects orders that remove something, so that the brake can look at all of a node's together.
type removals struct {
	p      *planner
	byNode map[string][]fsm.Body
}

func (p *planner) removals() *removals { return &removals{p: p, byNode: map[string][]fsm.Body{}} }

func (r *removals) add(node string, b fsm.Body) { r.byNode[node] = append(r.byNode[node], b) }

// flush lets through, per node, no more removals in one pass than the brake allows: the greater of 5 and a fifth of
// what the node holds. The rest waits for the next pass.
func (r *removals) flush() {
	holds := map[string]int{}
	for b := range r.p.s.Blobs() {
		for _, n := range b.Nodes {
			holds[n]++
		}
	}
	for _, n := range r.p.nodes {
		orders := r.byNode[n.ID]
		for _, b := range orders[:min(len(orders), max(5, holds[n.ID]/5))] {
			r.p.emit(b)
		}
	}
}
