package agent

import (
	"sync"

	"kontiki/fsm"
)

// settled knows which projects the agent has come to the end with, so that nobody is told of something wrong that the
// agent is just putting right. It is safe for concurrent use.
type settled struct {
	mu       sync.Mutex
	began    bool
	resuming map[string]bool   // projects that are made sure of after the start
	followed map[string]string // project → deployment that current was made to name
}

// begin says that the agent runs, and what it makes sure of first.
func (s *settled) begin(projects []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began, s.resuming, s.followed = true, map[string]bool{}, map[string]string{}
	for _, p := range projects {
		s.resuming[p] = true
	}
}

func (s *settled) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began
}

func (s *settled) resumed(project string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.resuming, project)
}

func (s *settled) follows(d *fsm.Deployment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followed != nil {
		s.followed[d.Project] = d.ID
	}
}

func (s *settled) on(d *fsm.Deployment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.resuming[d.Project] && s.followed[d.Project] == d.ID
}
