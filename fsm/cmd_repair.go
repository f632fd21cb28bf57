package fsm

import (
	"cmp"
	"fmt"
	"slices"

	"kontiki/errs"
)

// RepairOrder tells one node to do something outside a deployment's phases.
type RepairOrder struct {
	Repair     RepairKind `cbor:"kind"`
	Node       string     `cbor:"node"`
	Project    string     `cbor:"project,omitempty"`
	Deployment string     `cbor:"deployment,omitempty"`
	Digest     string     `cbor:"digest,omitempty"`
	Reason     string     `cbor:"reason"`
}

// Kind implements Body.
func (RepairOrder) Kind() Kind { return "repair.order" }

// RepairReport is a node's account of a repair.
type RepairReport struct {
	ID       string   `cbor:"id"`
	Node     string   `cbor:"node"`
	Attempt  int      `cbor:"attempt"`
	Failed   bool     `cbor:"failed,omitempty"`
	Message  string   `cbor:"message,omitempty"`
	Instance Instance `cbor:"instance,omitzero"` // of a placed release
	Digests  []string `cbor:"digests,omitempty"` // of blobs the node now holds
}

// Kind implements Body.
func (RepairReport) Kind() Kind { return "repair.report" }

func init() {
	register(true, applyRepairOrder, func(b RepairOrder) string { return b.Project })
	register(false, applyRepairReport, func(b RepairReport) string { return b.ID })
}

// keepRepairs is how many finished repairs are kept for people to look at.
const keepRepairs = 1000

// check refuses an order that no node could carry out; what it names becomes paths on the node's disk.
func (b RepairOrder) check() error {
	ok := false
	switch b.Repair {
	case RepairPlace, RepairCleanup:
		ok = CheckName("project", b.Project) == nil && ValidID(b.Deployment)
	case RepairForget:
		ok = CheckName("project", b.Project) == nil
	case RepairFetchBlob, RepairDropBlob:
		ok = ValidDigest(b.Digest)
	}
	if !ok {
		return errs.New(errs.BadCommand, "repair %q of project %q, deployment %q, blob %q is no order", clip(string(b.Repair)),
			clip(b.Project), clip(b.Deployment), clip(b.Digest))
	}
	return nil
}

func applyRepairOrder(t *tx, _ Command, b RepairOrder) (any, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if t.state().Node(b.Node) == nil {
		return nil, notFound("node", b.Node)
	}
	for r := range t.state().PendingRepairs(b.Node) {
		if r.Kind == b.Repair && r.Project == b.Project && r.Deployment == b.Deployment && r.Digest == b.Digest {
			return nil, errs.New(errs.Exists, "repair %s is the same and still open", r.ID)
		}
	}
	t.order(&Repair{Kind: b.Repair, Node: b.Node, Project: b.Project, Deployment: b.Deployment, Digest: b.Digest, Reason: b.Reason})
	return nil, nil
}

// order commits a repair; its ID comes from the log, so every node gives the same one.
func (t *tx) order(r *Repair) {
	t.orders++
	r.ID = fmt.Sprintf("r%d-%d", t.index, t.orders)
	r.State, r.Attempt, r.OrderedAt = StepPending, 1, t.now
	put(t, tableRepairs, r, &r.Indexes)
	t.pruneRepairs()
}

func (t *tx) pruneRepairs() {
	s := t.state()
	total := count(s.Repairs())
	if total <= 2*keepRepairs {
		return
	}
	var finished []*Repair
	for r := range s.Repairs() {
		if r.State != StepPending {
			finished = append(finished, r)
		}
	}
	slices.SortStableFunc(finished, func(a, b *Repair) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
	for i := 0; i < len(finished)-keepRepairs; i++ {
		drop(t, tableRepairs, finished[i].ID, finished[i])
	}
}

func applyRepairReport(t *tx, _ Command, b RepairReport) (any, error) {
	r := t.state().Repair(b.ID)
	if r == nil {
		return nil, notFound("repair", b.ID)
	}
	if r.Node != b.Node || r.State != StepPending || r.Attempt != b.Attempt {
		return nil, errs.New(errs.StaleReport, "repair %s is not open for node %q, attempt %d", b.ID, b.Node, b.Attempt)
	}
	for _, digest := range b.Digests {
		if !ValidDigest(digest) {
			return nil, errs.New(errs.BadCommand, "%q is not the digest of a blob", clip(digest))
		}
	}
	c := *r
	c.Message = b.Message
	if b.Failed {
		c.Attempt++ // the node tries again, with back-off, until the order is withdrawn
		put(t, tableRepairs, &c, &c.Indexes)
		return nil, nil
	}
	c.State, c.FinishedAt = StepDone, t.now
	put(t, tableRepairs, &c, &c.Indexes)
	t.repaired(r, b)
	return nil, nil
}

// repaired records what a finished repair changed.
func (t *tx) repaired(r *Repair, b RepairReport) {
	for _, digest := range b.Digests {
		t.holds(digest, 0, r.Node)
	}
	switch r.Kind {
	case RepairPlace:
		// Without an instance nothing was placed: the deployment had been replaced meanwhile.
		if d := t.state().Deployment(r.Deployment); d != nil && b.Instance.Node != "" {
			c := d.clone()
			b.Instance.Node = r.Node // nobody speaks for another node
			c.Instances = withInstance(c.Instances, b.Instance)
			put(t, tableDeployments, c, &c.Indexes)
		}
	case RepairCleanup:
		// An active deployment changes in any case: it may be placed here again now, and the leader looks at what changes.
		if d := t.state().Deployment(r.Deployment); d != nil && (d.Serves(r.Node) || d.Status == StatusActive) {
			c := d.clone()
			c.Instances = withoutInstance(c.Instances, r.Node)
			put(t, tableDeployments, c, &c.Indexes)
			t.pruneDeployments(c.Project)
		}
	case RepairDropBlob:
		if !slices.Contains(b.Digests, r.Digest) { // otherwise something needs it again, and the node has kept it
			t.lost(r.Digest, r.Node)
		}
	}
}
