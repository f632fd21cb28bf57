package reconcile

import (
	"time"

	"kontiki/fsm"
)

// Observation is what the leader has seen for itself, in durations on its own monotonic clock.
type Observation struct {
	// Silent is for how long each node has been without contact, 0 for one in contact. A node that is missing has
	// never been in contact.
	Silent map[string]time.Duration
	// Idle is for how long each running deployment has shown neither progress nor heartbeat.
	Idle map[string]time.Duration
	// InStep is for how long each step has been in its present attempt and state.
	InStep map[StepID]time.Duration
	// Scope is the projects whose placement is to be judged; nil judges all of them, with retention and blobs.
	Scope map[string]bool
	// Inventories is what nodes say they have, by node, shortly before; one that has not been asked, or has not answered,
	// is missing, and nothing is judged of it.
	Inventories map[string][]Holding
}

// Holding is a node's account of one project whose active deployment it is to serve.
type Holding struct {
	Project    string
	Deployment string // the one that was active when the node looked
	Release    bool   // its directory is there
	Current    bool   // the project's current link names it
	Webroot    bool   // the project's webroot link is right
	Server     bool   // the project's server runs and is not ill
}

// StepID names one attempt of a step in one state.
type StepID struct {
	Deployment string
	Phase      fsm.Phase
	Node       string
	Attempt    int
	State      fsm.StepState
}

// Watch measures for how long the leader has seen things be as they are. The zero value is ready; it is not safe for
// concurrent use.
type Watch struct {
	progress map[string]seen
	steps    map[StepID]time.Time
}

type seen struct {
	index uint64 // modify index of the last change that counts as progress
	since time.Time
}

// Observe fills in Idle and InStep from the running deployments at time now.
func (w *Watch) Observe(s *fsm.State, now time.Time) Observation {
	o := Observation{Idle: map[string]time.Duration{}, InStep: map[StepID]time.Duration{}}
	progress, steps := map[string]seen{}, map[StepID]time.Time{}
	for d := range s.DeploymentsIn(fsm.StatusRunning) {
		at, ok := w.progress[d.ID]
		if !ok || at.index != d.ModifyIndex {
			at = seen{index: d.ModifyIndex, since: now}
		}
		progress[d.ID] = at
		o.Idle[d.ID] = now.Sub(at.since)
		for i := range d.Steps {
			step := &d.Steps[i]
			if step.Phase != d.Phase {
				continue
			}
			id := StepID{d.ID, step.Phase, step.Node, step.Attempt, step.State}
			since, ok := w.steps[id]
			if !ok {
				since = now
			}
			steps[id] = since
			o.InStep[id] = now.Sub(since)
		}
	}
	w.progress, w.steps = progress, steps
	return o
}
