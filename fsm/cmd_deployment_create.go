package fsm

import (
	"regexp"

	"kontiki/errs"
)

// maxQueued is how many deployments of one project, and queuedInAll how many of the cluster, may wait.
const (
	maxQueued   = 100
	queuedInAll = 10_000
)

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ValidDigest reports whether s is sha256: and 64 hex digits.
func ValidDigest(s string) bool { return digestForm.MatchString(s) }

// DeploymentCreate queues a deployment of a source that is stored already.
type DeploymentCreate struct {
	ID      string   `cbor:"id"` // ULID, given by the proposer
	Project string   `cbor:"project"`
	Create  bool     `cbor:"create,omitempty"` // make the project if it is not there
	Source  Source   `cbor:"source"`
	Spec    Spec     `cbor:"spec"`
	Nodes   []string `cbor:"nodes"` // those that hold the source
}

// Kind implements Body.
func (DeploymentCreate) Kind() Kind { return "deployment.create" }

// DeploymentCreated is the answer to DeploymentCreate.
type DeploymentCreated struct {
	ID     string `cbor:"id"`
	Number uint64 `cbor:"number"`
}

func init() {
	register(true, applyDeploymentCreate, func(b DeploymentCreate) string { return b.Project })
}

func (b DeploymentCreate) check(s *State) error {
	if !ValidID(b.ID) {
		return errs.New(errs.BadCommand, "a deployment's ID is a ULID, not %q", clip(b.ID))
	}
	if s.Deployment(b.ID) != nil {
		return errs.New(errs.Exists, "deployment %s exists", b.ID)
	}
	if b.Source.Type != SourceUpload || !ValidDigest(b.Source.Digest) || b.Source.Size < 0 || len(b.Source.Label) > 200 || !printable(b.Source.Label) {
		return errs.New(errs.Invalid, "the source is not acceptable").WithField("source")
	}
	return b.Spec.Validate()
}

func applyDeploymentCreate(t *tx, cmd Command, b DeploymentCreate) (any, error) {
	s := t.state()
	if err := b.check(s); err != nil {
		return nil, err
	}
	older, err := t.room(b.Project)
	if err != nil {
		return nil, err
	}
	if s.Project(b.Project) == nil {
		if !b.Create {
			return nil, errs.New(errs.NotFound, "there is no project %q", clip(b.Project)).
				WithHint("create it first, or ask with create=true")
		}
		if err := t.createProject(ProjectCreate{Name: b.Project}); err != nil {
			return nil, err
		}
	}
	p := *t.state().Project(b.Project)
	d := &Deployment{ID: b.ID, Project: b.Project, Number: p.NextNumber, Source: b.Source, Spec: b.Spec}
	d.Status, d.Phase, d.PhaseUpdatedAt, d.Attempt = StatusQueued, PhaseQueued, t.now, 1
	d.Actor, d.CreatedAt = cmd.Actor, t.now
	t.event(d, "", "queued")
	if s.Settings().Queue == "latest" {
		t.supersedeQueued(older, d)
	}
	put(t, tableDeployments, d, &d.Indexes)
	p.NextNumber++
	p.UpdatedAt = t.now
	put(t, tableProjects, &p, &p.Indexes)
	t.holds(b.Source.Digest, b.Source.Size, b.Nodes...)
	t.pruneDeployments(p.Name)
	return DeploymentCreated{ID: d.ID, Number: d.Number}, nil
}

// room gives the project's deployments that wait already, and refuses one more when they, or all, are too many.
func (t *tx) room(project string) ([]*Deployment, error) {
	total := 0
	var own []*Deployment
	for q := range t.state().DeploymentsIn(StatusQueued) {
		total++
		if q.Project == project {
			own = append(own, q)
		}
	}
	if total >= queuedInAll || len(own) >= maxQueued {
		return nil, errs.New(errs.TooMany, "%d deployments wait, %d of them of project %q", total, len(own), clip(project)).
			WithHint("try again when some of them have run")
	}
	return own, nil
}

// supersedeQueued cancels the older deployments of the project that still wait.
func (t *tx) supersedeQueued(older []*Deployment, newer *Deployment) {
	for _, q := range older {
		c := q.clone()
		t.finish(c, StatusCancelled, "replaced in the queue by a newer deployment, "+newer.ID)
		put(t, tableDeployments, c, &c.Indexes)
	}
}
