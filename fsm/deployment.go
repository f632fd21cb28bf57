package fsm

import (
	"encoding/json"
	"slices"
	"strconv"

	"kontiki/errs"
)

// Deployment is one attempt to bring a version of a project into service.
type Deployment struct {
	ID      string `json:"id"`      // ULID
	Project string `json:"project"` // name of the project
	Number  uint64 `json:"number"`  // counts the project's deployments from 1
	Source  Source `json:"source"`
	Spec    Spec   `json:"spec"`
	Progress
	Placement
	History
	Indexes
}

// Progress is where the deployment is.
type Progress struct {
	Status         Status            `json:"status"`
	Phase          Phase             `json:"phase"`
	PhaseProgress  int               `json:"phase_progress"`           // per cent, 0 to 100
	PhaseMetadata  map[string]string `json:"phase_metadata,omitempty"` // merged, never replaced
	PhaseUpdatedAt Time              `json:"phase_updated_at"`         // last phase change, report or heartbeat
	Attempt        int               `json:"attempt"`                  // tries of the present phase, from 1
	Failure        *Failure          `json:"failure,omitempty"`
}

// Placement is who works on the deployment and what came of it.
type Placement struct {
	Builder   string     `json:"builder,omitempty"` // node ID
	Targets   []string   `json:"targets,omitempty"` // node IDs, sorted
	Artifact  *Artifact  `json:"artifact,omitempty"`
	Instances []Instance `json:"instances,omitempty"` // sorted by node
}

// History is the deployment's timeline.
type History struct {
	Steps      []Step  `json:"steps,omitempty"`
	Events     []Event `json:"events,omitempty"`
	Actor      string  `json:"actor,omitempty"`
	CreatedAt  Time    `json:"created_at"`
	StartedAt  Time    `json:"started_at,omitzero"`
	FinishedAt Time    `json:"finished_at,omitzero"`
}

// Indexes are the log indexes at which an object was made and last changed.
type Indexes struct {
	CreateIndex uint64 `json:"create_index"`
	ModifyIndex uint64 `json:"modify_index"`
}

// Source is what to deploy.
type Source struct {
	Type   SourceType `json:"type"`
	Digest string     `json:"digest,omitempty"` // of the uploaded archive, sha256:<hex>
	Size   int64      `json:"size,omitempty"`   // bytes
	Format string     `json:"format,omitempty"` // tar, tar.gz, tar.zst or zip
	Label  string     `json:"label,omitempty"`  // what the user calls this version, for people only
}

// Artifact is what the builder made: content plus the manifest that says what must come out of it.
type Artifact struct {
	Content  string `json:"content"`  // digest of the archive the release is extracted from
	Format   string `json:"format"`   // its format
	Manifest string `json:"manifest"` // digest of the manifest
	Files    int    `json:"files"`
	Bytes    int64  `json:"bytes"` // unpacked
}

// Instance is a release ready to serve on a node.
type Instance struct {
	Node     string `json:"node"`
	Endpoint string `json:"endpoint,omitempty"` // for people: how the node itself reaches it
}

// StepState is the state of one node's work in one phase.
type StepState string

// The step states.
const (
	StepPending   StepState = "pending" // ordered, not reported yet
	StepDone      StepState = "done"
	StepFailed    StepState = "failed"    // this attempt failed; the leader decides what follows
	StepSkipped   StepState = "skipped"   // the phase has no work
	StepAbandoned StepState = "abandoned" // the work was given to another node
)

// Step is one node's work in one phase.
type Step struct {
	Phase      Phase     `json:"phase"`
	Node       string    `json:"node,omitempty"`
	Attempt    int       `json:"attempt"`
	State      StepState `json:"state"`
	StartedAt  Time      `json:"started_at"`
	FinishedAt Time      `json:"finished_at,omitzero"`
	Term       uint64    `json:"term"` // the Raft term in which it was ordered, then in which its report was committed
	Message    string    `json:"message,omitempty"`
	Failure    *Failure  `json:"failure,omitempty"`
}

// Failure says why a step or a deployment failed.
type Failure struct {
	Phase     Phase     `json:"phase"`
	Node      string    `json:"node,omitempty"`
	Code      errs.Code `json:"code"`
	Message   string    `json:"message"`
	Hint      string    `json:"hint,omitempty"`
	Causes    []string  `json:"causes,omitempty"` // outermost first
	Stack     string    `json:"stack,omitempty"`
	LogTail   []string  `json:"log_tail,omitempty"` // the last lines of the step's log
	Transient bool      `json:"transient"`          // trying again may help
}

// Event is one line of the timeline.
type Event struct {
	Index    uint64 `json:"index"`
	Term     uint64 `json:"term"`
	At       Time   `json:"at"`
	Phase    Phase  `json:"phase"`
	Progress int    `json:"progress"`
	Attempt  int    `json:"attempt,omitempty"`
	Node     string `json:"node,omitempty"`
	Message  string `json:"message"`
}

// Replicas is on how many nodes a release runs; ReplicasAll means each. In JSON a number, or "all".
type Replicas int

// ReplicasAll puts one on every node, also on those that join later.
const ReplicasAll Replicas = -1

// MarshalJSON writes a number, or "all".
func (r Replicas) MarshalJSON() ([]byte, error) {
	if r == ReplicasAll {
		return []byte(`"all"`), nil
	}
	return json.Marshal(int(r))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Replicas) UnmarshalJSON(b []byte) error {
	if string(b) == `"all"` {
		*r = ReplicasAll
		return nil
	}
	n, err := ParseReplicas(string(b))
	if err != nil {
		return err
	}
	*r = n
	return nil
}

// ParseReplicas reads "all" or a number from 1 to 1000.
func ParseReplicas(s string) (Replicas, error) {
	if s == "all" {
		return ReplicasAll, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1000 {
		return 0, errs.New(errs.Invalid, "replicas is %q", s).WithField("replicas").
			WithHint(`give a number from 1 to 1000, or "all"`)
	}
	return Replicas(n), nil
}

// Spec is how a version is to be run.
type Spec struct {
	Replicas Replicas `json:"replicas"`
	Health   Health   `json:"health"`
}

// Health is how a release is judged fit to serve.
type Health struct {
	Path        string `json:"path"` // HTTP path that must answer below 400
	Interval    Millis `json:"interval"`
	Timeout     Millis `json:"timeout"`
	Retries     int    `json:"retries"`
	StartPeriod Millis `json:"start_period"` // of the container's own check; a deployment's health check begins at once
}

// DefaultSpec is the spec of a project that says nothing of its own.
func DefaultSpec() Spec {
	return Spec{Replicas: ReplicasAll, Health: Health{Path: "/", Interval: 30_000, Timeout: 10_000, Retries: 3, StartPeriod: 40_000}}
}

// Validate refuses specs that make no sense; the error is of code Invalid and names the field.
func (s Spec) Validate() error {
	h := s.Health
	switch {
	case s.Replicas != ReplicasAll && (s.Replicas < 1 || s.Replicas > 1000):
		return errs.New(errs.Invalid, "replicas is %d", s.Replicas).WithField("replicas").WithHint(`give a number from 1 to 1000, or "all"`)
	case len(h.Path) == 0 || h.Path[0] != '/' || len(h.Path) > 1024 || !printable(h.Path):
		return errs.New(errs.Invalid, "health path is %q", clip(h.Path)).WithField("health.path").WithHint("start it with a slash, such as /healthz")
	case h.Timeout < 1 || h.Interval < 1 || h.Retries < 1 || h.StartPeriod < 0:
		return errs.New(errs.Invalid, "health interval, timeout and retries must be above zero").WithField("health").WithHint("leave them out for the defaults: 30s, 10s, 3")
	case max(h.Timeout, h.Interval, h.StartPeriod) > Longest || h.Retries > 1000:
		return errs.New(errs.Invalid, "health interval, timeout, start period or retries are beyond all use").WithField("health").WithHint("give at most 720h and 1000 retries")
	}
	return nil
}

// Step finds the newest step of a node in a phase, or nil.
func (d *Deployment) Step(phase Phase, node string) *Step {
	for i := len(d.Steps) - 1; i >= 0; i-- {
		if d.Steps[i].Phase == phase && d.Steps[i].Node == node {
			return &d.Steps[i]
		}
	}
	return nil
}

// Serves reports whether the node has the release ready.
func (d *Deployment) Serves(node string) bool {
	return slices.ContainsFunc(d.Instances, func(i Instance) bool { return i.Node == node })
}

// Routable reports whether the deployment's own host name leads somewhere: from updating_routes on, while it runs or
// after it worked.
func (d *Deployment) Routable() bool {
	switch d.Status {
	case StatusRunning:
		return d.Phase.Order() >= PhaseUpdatingRoutes.Order()
	case StatusActive, StatusSuperseded:
		return len(d.Instances) > 0
	}
	return false
}

// clone gives a copy whose slices and maps may be changed.
func (d *Deployment) clone() *Deployment {
	c := *d
	c.Targets = slices.Clone(d.Targets)
	c.Instances = slices.Clone(d.Instances)
	c.Steps = slices.Clone(d.Steps)
	return &c
}
