package fsm

// Phase is where a deployment is on its way.
type Phase string

// The nine phases.
const (
	PhaseQueued           Phase = "queued"
	PhasePullingSource    Phase = "pulling_source"
	PhaseBuilding         Phase = "building"
	PhaseCopyingFiles     Phase = "copying_files"
	PhaseCreatingSymlinks Phase = "creating_symlinks"
	PhaseUpdatingRoutes   Phase = "updating_routes"
	PhaseHealthCheck      Phase = "health_check"
	PhaseActive           Phase = "active"
	PhaseFailed           Phase = "failed"
)

// Phases lists all nine in order.
var Phases = []Phase{PhaseQueued, PhasePullingSource, PhaseBuilding, PhaseCopyingFiles, PhaseCreatingSymlinks,
	PhaseUpdatingRoutes, PhaseHealthCheck, PhaseActive, PhaseFailed}

// Progress is the percentage at which a phase begins.
func (p Phase) Progress() int {
	switch p {
	case PhasePullingSource:
		return 10
	case PhaseBuilding:
		return 30
	case PhaseCopyingFiles:
		return 50
	case PhaseCreatingSymlinks:
		return 60
	case PhaseUpdatingRoutes:
		return 75
	case PhaseHealthCheck:
		return 90
	case PhaseActive:
		return 100
	}
	return 0
}

// Order is the phase's place in Phases, -1 for a name that is no phase.
func (p Phase) Order() int {
	for i, q := range Phases {
		if p == q {
			return i
		}
	}
	return -1
}

// Role says which nodes work in a phase.
type Role string

// The roles.
const (
	RoleNone    Role = "none"    // nobody: the phase is recorded as skipped
	RoleBuilder Role = "builder" // the one node that prepares the artifact
	RoleTarget  Role = "target"  // every node that will serve the release
)

// SourceType is what a deployment is made from.
type SourceType string

// The source types.
const (
	SourceUpload SourceType = "upload"
)

// RoleIn says who works in a phase of a deployment of this source type.
func (s SourceType) RoleIn(p Phase) Role {
	switch p {
	case PhasePullingSource, PhaseBuilding:
		return RoleBuilder
	case PhaseCopyingFiles, PhaseCreatingSymlinks, PhaseUpdatingRoutes, PhaseHealthCheck:
		return RoleTarget
	}
	return RoleNone
}

// Status is a deployment's state for people, beside its phase.
type Status string

// The statuses; all but queued, running and active are final, and active ends only as superseded.
const (
	StatusQueued     Status = "queued"
	StatusRunning    Status = "running"
	StatusActive     Status = "active"
	StatusSuperseded Status = "superseded" // it worked, a newer one replaced it
	StatusFailed     Status = "failed"     // it never worked
	StatusCancelled  Status = "cancelled"  // somebody, or a newer deployment in the queue, stopped it
)

// Terminal reports whether the deployment has come to its end; an active one has, though it may still be superseded.
func (s Status) Terminal() bool { return s != StatusQueued && s != StatusRunning }
