package reconcile

import (
	"context"
	"sync"
	"time"

	"kontiki/fsm"
)

// surveyLimit is how long the nodes have to say what they have.
const surveyLimit = 15 * time.Second

// survey asks the nodes what they have, one round at a time and beside the loop: a node that does not answer holds up
// no judgement. It belongs to the goroutine of the loop.
type survey struct {
	cfg     *Config
	answers chan map[string][]Holding
	asking  bool
	due     bool // another round was wanted while one was under way
	wg      sync.WaitGroup
}

func newSurvey(cfg *Config) survey {
	return survey{cfg: cfg, answers: make(chan map[string][]Holding, 1)}
}

// begin asks the nodes that are in contact, all at once; the answers come together when the last one is there or the
// time is over.
func (v *survey) begin(ctx context.Context, s *fsm.State) {
	if v.cfg.Inventory == nil {
		return
	}
	if v.due = v.asking; v.asking {
		return
	}
	v.asking = true
	var nodes []string
	for n := range s.Nodes() {
		if n.State == fsm.NodeReady {
			nodes = append(nodes, n.ID)
		}
	}
	v.wg.Go(func() { v.answers <- v.ask(ctx, nodes) }) // there is room: one round at a time
}

func (v *survey) ask(ctx context.Context, nodes []string) map[string][]Holding {
	ctx, cancel := context.WithTimeout(ctx, surveyLimit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := map[string][]Holding{}
	for _, n := range nodes {
		wg.Go(func() {
			holdings, err := v.cfg.Inventory(ctx, n)
			if err != nil {
				v.cfg.Logger.Debug("a node does not say what it has", "peer", n, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all[n] = holdings
		})
	}
	wg.Wait()
	return all
}

// ended notes that a round is over and begins the next one if that was wanted.
func (v *survey) ended(ctx context.Context, s *fsm.State) {
	v.asking = false
	if v.due {
		v.begin(ctx, s)
	}
}
