package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

// dropDelay keeps a blob for a moment after its removal is ordered. An upload is stored before the deployment that refers
// to it is committed, and may be of content that nothing refers to any more: by then the agent sees that it is needed.
const dropDelay = 15 * time.Second

// pauseBefore is how long an attempt of a repair waits: a failed one is ordered again by its report, and the attempts are
// spaced by a back-off that doubles up to half a minute.
func pauseBefore(r *fsm.Repair) time.Duration {
	switch {
	case r.Kind == fsm.RepairDropBlob:
		return dropDelay
	case r.Attempt > 1:
		return min(250*time.Millisecond<<min(r.Attempt-2, 10), 30*time.Second)
	}
	return 0
}

// runRepair carries out one attempt of a repair and reports.
func (a *Agent) runRepair(ctx context.Context, r *fsm.Repair) {
	logger := a.cfg.Logger.With("repair", r.ID, "kind", r.Kind, "project", r.Project, "deployment", r.Deployment)
	report := fsm.RepairReport{ID: r.ID, Node: a.cfg.Node, Attempt: r.Attempt}
	err := a.repair(ctx, r, &report)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		logger.Warn("a repair failed", "error", err)
		report.Failed, report.Message = true, clip(err.Error(), 1000)
	}
	if err := a.propose(ctx, report); err != nil && ctx.Err() == nil && !stale(err) {
		logger.Error("a repair's report was refused", "error", err)
	}
}

func (a *Agent) repair(ctx context.Context, r *fsm.Repair, report *fsm.RepairReport) error {
	if err := fault.Point("agent.repair.before"); err != nil {
		return err
	}
	var err error
	switch r.Kind {
	case fsm.RepairPlace:
		err = a.place(ctx, r, report)
	case fsm.RepairCleanup:
		err = a.cleanup(ctx, r)
	case fsm.RepairForget:
		err = a.forget(ctx, r)
	case fsm.RepairFetchBlob:
		err = a.cfg.Blobs.Ensure(ctx, r.Digest)
		report.Digests = []string{r.Digest}
	case fsm.RepairDropBlob:
		err = a.dropBlob(ctx, r, report)
	default:
		err = errs.New(errs.UnknownCommand, "this version does not know the repair %q", r.Kind).WithHint("update this node's kontiki")
	}
	if err != nil {
		return err
	}
	return fault.Point("agent.repair.after")
}

// place makes this node serve an active deployment: the same Ensures as a deployment's own phases. Where it serves already,
// and something of it was found missing, current is put right too; elsewhere it follows the report. When the deployment
// was replaced meanwhile, what an earlier try has made of it is removed.
func (a *Agent) place(ctx context.Context, r *fsm.Repair, report *fsm.RepairReport) error {
	unlock, err := a.together(ctx, r.Project)
	if err != nil {
		return err
	}
	d := a.cfg.Replica.State().Deployment(r.Deployment) // as it is now: a removal may have had the project first
	if d == nil || d.Status != fsm.StatusActive {
		unlock()
		report.Message = "no longer active"
		if d != nil && d.Serves(a.cfg.Node) {
			return nil
		}
		return a.cleanup(ctx, r)
	}
	inst, err := a.ensureServed(ctx, d)
	unlock()
	if err != nil {
		return err
	}
	report.Instance, report.Digests = inst, []string{d.Artifact.Content, d.Artifact.Manifest}
	return a.follow(ctx, r.Project)
}

// ensureServed makes release, server and webroot of an active deployment be as they must.
func (a *Agent) ensureServed(ctx context.Context, d *fsm.Deployment) (fsm.Instance, error) {
	inst, _, err := a.ensureCopied(ctx, d)
	if err != nil {
		return inst, err
	}
	return inst, a.ensureLinked(ctx, d)
}

// cleanup removes what this node has of a deployment that does not serve here; what serves is never removed. It waits
// for work on the project to end, or a cancelled step could bring back what was removed.
func (a *Agent) cleanup(ctx context.Context, r *fsm.Repair) error {
	unlock, err := a.alone(ctx, r.Project)
	if err != nil {
		return err
	}
	defer unlock()
	s := a.cfg.Replica.State()
	if d := s.ActiveOf(s.Project(r.Project)); d != nil && d.ID == r.Deployment && d.Serves(a.cfg.Node) {
		return errs.New(errs.Conflict, "deployment %s is active and stays", r.Deployment)
	}
	if err := a.leave(ctx, s, r); err != nil {
		return err
	}
	if err := a.cfg.Sites.Prune(ctx, r.Project, func(d string) bool { return d != r.Deployment }); err != nil {
		return fmt.Errorf("remove the release: %w", err)
	}
	if !a.usesServer(s, r) {
		return a.cfg.Engine.RemoveServer(ctx, r.Project)
	}
	return nil
}

// leave makes current name another release when this node no longer serves the project's active one: nothing would ever
// move it away from the one that is to be removed.
func (a *Agent) leave(ctx context.Context, s *fsm.State, r *fsm.Repair) error {
	if active := s.ActiveOf(s.Project(r.Project)); active != nil && active.Serves(a.cfg.Node) {
		return nil
	}
	for d := range s.DeploymentsOf(r.Project, 0) {
		if d.ID != r.Deployment && d.Serves(a.cfg.Node) && d.Status == fsm.StatusSuperseded {
			if err := a.cfg.Sites.EnsureCurrent(ctx, r.Project, d.ID); err != nil {
				return fmt.Errorf("let current name release %s: %w", d.ID, err)
			}
			return nil
		}
	}
	return nil
}

// usesServer reports whether the project's server has something to serve on this node besides what is to be removed, now
// or when work under way is done. Whatever that comes to, this node gets to know of its end by another cleanup.
func (a *Agent) usesServer(s *fsm.State, r *fsm.Repair) bool {
	removed := map[string]bool{r.Deployment: true}
	for open := range s.PendingRepairs(a.cfg.Node) {
		if open.Project != r.Project || open.ID == r.ID {
			continue
		}
		switch open.Kind {
		case fsm.RepairPlace:
			return true
		case fsm.RepairCleanup:
			removed[open.Deployment] = true // and its report may be on its way
		}
	}
	for d := range s.DeploymentsOf(r.Project, 0) {
		if !removed[d.ID] && (d.Serves(a.cfg.Node) || d.Status == fsm.StatusRunning && a.prepares(d)) {
			return true
		}
	}
	return false
}

// prepares reports whether this node has begun to prepare the release.
func (a *Agent) prepares(d *fsm.Deployment) bool {
	return slices.ContainsFunc(d.Steps, func(s fsm.Step) bool {
		return s.Node == a.cfg.Node && d.Source.Type.RoleIn(s.Phase) == fsm.RoleTarget
	})
}

// forget removes all this node has of a deleted project; what a new project of the same name has made since stays.
func (a *Agent) forget(ctx context.Context, r *fsm.Repair) error {
	unlock, err := a.alone(ctx, r.Project)
	if err != nil {
		return err
	}
	defer unlock()
	s := a.cfg.Replica.State()
	if !a.usesServer(s, r) {
		if err := a.cfg.Engine.RemoveServer(ctx, r.Project); err != nil {
			return fmt.Errorf("remove the server of project %s: %w", r.Project, err)
		}
	}
	if err := a.cfg.Sites.Prune(ctx, r.Project, func(d string) bool { return s.Deployment(d) != nil }); err != nil {
		return fmt.Errorf("remove the files of project %s: %w", r.Project, err)
	}
	return nil
}

// dropBlob removes a blob. When something has come to need it since, it stays, and the report says that it is held.
func (a *Agent) dropBlob(ctx context.Context, r *fsm.Repair, report *fsm.RepairReport) error {
	for _, status := range []fsm.Status{fsm.StatusQueued, fsm.StatusRunning, fsm.StatusActive} {
		for d := range a.cfg.Replica.State().DeploymentsIn(status) {
			if d.Source.Digest == r.Digest || d.Artifact != nil && d.Artifact.Manifest == r.Digest {
				report.Message, report.Digests = "deployment "+d.ID+" needs it", []string{r.Digest}
				return a.cfg.Blobs.Ensure(ctx, r.Digest)
			}
		}
	}
	return a.cfg.Blobs.Drop(ctx, r.Digest)
}

// runSwitch makes the project's current link name the active deployment, trying until it does or that is no longer the
// active one here.
func (a *Agent) runSwitch(ctx context.Context, project string) {
	for try := 0; ; try++ {
		err := a.follow(ctx, project)
		if err == nil {
			return
		}
		a.cfg.Logger.Warn("current does not follow yet", "project", project, "error", err)
		if sleep(ctx, min(100*time.Millisecond<<min(try, 8), 10*time.Second)) != nil {
			return
		}
	}
}

// follow makes current name the deployment that is active here. It looks again afterwards: of two at the same time, the
// one that comes last has seen the newest.
func (a *Agent) follow(ctx context.Context, project string) error {
	for {
		s := a.cfg.Replica.State()
		d := s.ActiveOf(s.Project(project))
		if d == nil || !d.Serves(a.cfg.Node) {
			return nil
		}
		if err := a.switchTo(ctx, d); err != nil {
			return fmt.Errorf("let current name release %s: %w", d.ID, err)
		}
		if now := a.cfg.Replica.State().Project(project); now == nil || now.Active == d.ID {
			a.settled.follows(d)
			return nil
		}
	}
}

func (a *Agent) switchTo(ctx context.Context, d *fsm.Deployment) error {
	unlock, err := a.together(ctx, d.Project)
	if err != nil {
		return err
	}
	defer unlock()
	if err := fault.Point("agent.switch.before"); err != nil {
		return err
	}
	if err := a.cfg.Sites.EnsureCurrent(ctx, d.Project, d.ID); err != nil {
		return err
	}
	return fault.Point("agent.switch.after")
}
