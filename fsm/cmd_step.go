package fsm

import (
	"fmt"

	"kontiki/errs"
)

// StepKey names one attempt of one node's work in one phase; reports are accepted for the attempt at hand only.
type StepKey struct {
	Deployment string `cbor:"deployment"`
	Phase      Phase  `cbor:"phase"`
	Attempt    int    `cbor:"attempt"`
	Node       string `cbor:"node"`
}

// StepReport is a node's account of a step that it has done, or could not do.
type StepReport struct {
	StepKey
	Message  string            `cbor:"message,omitempty"`
	Metadata map[string]string `cbor:"metadata,omitempty"` // merged into the deployment's phase metadata
	Failure  *Failure          `cbor:"failure,omitempty"`  // nil when the step is done
	Artifact *Artifact         `cbor:"artifact,omitempty"` // what the builder made
	Instance *Instance         `cbor:"instance,omitempty"` // what a target has ready
	Held     []Held            `cbor:"held,omitempty"`     // blobs stored in the course of the step
}

// Held is a blob and the nodes that are known to have it.
type Held struct {
	Digest string   `cbor:"digest"`
	Size   int64    `cbor:"size"`
	Nodes  []string `cbor:"nodes"`
}

// Kind implements Body.
func (StepReport) Kind() Kind { return "step.report" }

// StepProgress is a heartbeat of a long step, with how far it has come inside the phase.
type StepProgress struct {
	StepKey
	Percent  int               `cbor:"percent"` // 0 to 100 of the phase
	Metadata map[string]string `cbor:"metadata,omitempty"`
}

// Kind implements Body.
func (StepProgress) Kind() Kind { return "step.progress" }

func init() {
	register(false, applyStepReport, func(b StepReport) string { return b.Deployment })
	register(false, applyStepProgress, func(b StepProgress) string { return b.Deployment })
}

// pending finds the step at hand that the key names, in a copy of its deployment.
func (t *tx) pending(k StepKey) (*Deployment, *Step, error) {
	d, err := t.running(k.Deployment, k.Phase)
	if err != nil {
		return nil, nil, err
	}
	s := d.Step(k.Phase, k.Node)
	if s == nil || s.Attempt != k.Attempt || s.State != StepPending {
		return nil, nil, errs.New(errs.StaleReport, "attempt %d of %s of deployment %s on node %q is over", k.Attempt, k.Phase, k.Deployment, k.Node)
	}
	return d, s, nil
}

// describe merges into the phase metadata, whose limits hold for the whole.
func (d *Deployment) describe(changes map[string]string) error {
	merged := merge(d.PhaseMetadata, changes)
	if err := CheckMetadata(merged); err != nil {
		return err
	}
	d.PhaseMetadata = merged
	return nil
}

// check refuses a report that says what its reporter cannot know: artifacts come from the builder, instances from a
// target, and both only with work that is done.
func (b StepReport) check(d *Deployment) error {
	for _, h := range b.Held {
		if !ValidDigest(h.Digest) || h.Size < 0 {
			return errs.New(errs.BadCommand, "a held blob needs a digest and a size, not %q and %d", clip(h.Digest), h.Size)
		}
	}
	role := d.Source.Type.RoleIn(b.Phase)
	switch {
	case b.Failure != nil && (b.Artifact != nil || b.Instance != nil):
		return errs.New(errs.BadCommand, "a failed step has nothing to show")
	case b.Artifact != nil && role != RoleBuilder:
		return errs.New(errs.BadCommand, "an artifact does not come from %s", b.Phase)
	case b.Artifact != nil && (!ValidDigest(b.Artifact.Content) || !ValidDigest(b.Artifact.Manifest)):
		return errs.New(errs.BadCommand, "an artifact needs the digests of its content and its manifest")
	case b.Instance != nil && role != RoleTarget:
		return errs.New(errs.BadCommand, "an instance does not come from %s", b.Phase)
	case b.Instance != nil && b.Instance.Node != b.Node:
		return errs.New(errs.BadCommand, "node %q reports an instance of node %q", b.Node, clip(b.Instance.Node))
	}
	return nil
}

func applyStepReport(t *tx, _ Command, b StepReport) (any, error) {
	d, s, err := t.pending(b.StepKey)
	if err != nil {
		return nil, err
	}
	if err := b.check(d); err != nil {
		return nil, err
	}
	if err := d.describe(b.Metadata); err != nil {
		return nil, err
	}
	s.FinishedAt, s.Term, s.Message, s.Failure, s.State = t.now, t.term, b.Message, b.Failure, StepDone
	d.PhaseUpdatedAt = t.now
	for _, h := range b.Held {
		t.holds(h.Digest, h.Size, h.Nodes...)
	}
	if b.Failure != nil {
		s.State = StepFailed
		t.event(d, b.Node, fmt.Sprintf("attempt %d failed: %s", b.Attempt, b.Failure.Message))
		put(t, tableDeployments, d, &d.Indexes)
		return nil, nil
	}
	if b.Artifact != nil {
		d.Artifact = b.Artifact
	}
	if b.Instance != nil {
		d.Instances = withInstance(d.Instances, *b.Instance)
	} else if b.Phase == PhaseHealthCheck && !d.Serves(b.Node) { // it came in late, and what it serves was checked
		d.Instances = withInstance(d.Instances, Instance{Node: b.Node})
	}
	t.advance(d)
	put(t, tableDeployments, d, &d.Indexes)
	return nil, nil
}

func applyStepProgress(t *tx, _ Command, b StepProgress) (any, error) {
	if b.Percent < 0 || b.Percent > 100 {
		return nil, errs.New(errs.BadCommand, "progress of %d per cent", b.Percent)
	}
	d, _, err := t.pending(b.StepKey)
	if err != nil {
		return nil, err
	}
	if err := d.describe(b.Metadata); err != nil {
		return nil, err
	}
	from, to := d.Phase.Progress(), Phases[d.Phase.Order()+1].Progress()
	d.PhaseProgress = max(d.PhaseProgress, from+(to-from)*b.Percent/100)
	d.PhaseUpdatedAt = t.now
	put(t, tableDeployments, d, &d.Indexes)
	return nil, nil
}
