package ingress

import (
	"sync"
	"sync/atomic"
	"time"
)

// order gives the instances in the order to try them: this node, then the others in state ready, then the rest, each
// part beginning at another one each time; whoever failed within the last seconds comes after all others.
func (g *Ingress) order(rt Route) []string {
	turn := int(g.turn.Add(1) % 1024)
	ordered := make([]string, 0, len(rt.Instances))
	for _, part := range [][]string{rt.Instances[:rt.Ready], rt.Instances[rt.Ready:]} {
		for i := range part {
			ordered = append(ordered, part[(i+turn)%len(part)])
		}
	}
	for i, node := range ordered {
		if node == g.cfg.NodeID {
			copy(ordered[1:i+1], ordered[:i])
			ordered[0] = node
			break
		}
	}
	return g.suspects.last(ordered, rt.Deployment)
}

// suspects remembers who failed a moment ago: a node as a whole, or one release on it.
type suspects struct {
	count atomic.Int32 // of entries in until, so that the usual case takes no lock
	mu    sync.Mutex
	until map[suspect]time.Time
}

// suspect is a release on a node, or with no deployment the node.
type suspect struct{ node, deployment string }

func (s *suspects) add(who suspect, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = map[suspect]time.Time{}
	}
	s.until[who] = until
	s.count.Store(int32(len(s.until)))
}

// last moves the suspects among the nodes behind the others and otherwise keeps the order.
func (s *suspects) last(nodes []string, deployment string) []string {
	if s.count.Load() == 0 {
		return nodes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for who, until := range s.until {
		if now.After(until) {
			delete(s.until, who)
		}
	}
	s.count.Store(int32(len(s.until)))
	good, bad := make([]string, 0, len(nodes)), []string(nil)
	for _, n := range nodes {
		_, node := s.until[suspect{node: n}]
		_, release := s.until[suspect{node: n, deployment: deployment}]
		if node || release {
			bad = append(bad, n)
			continue
		}
		good = append(good, n)
	}
	return append(good, bad...)
}
