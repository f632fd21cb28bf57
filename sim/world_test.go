package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"kontiki/cluster"
	"kontiki/fsm"
)

// world is one simulated cluster.
type world struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand // of the schedule: used by the test's goroutine only
	net   *cluster.MemoryNetwork
	nodes []*node
	book  *book
	tally *tally
}

func newWorld(t *testing.T, seed uint64, count int) *world {
	if seed%5 == 0 {
		count = 5
	}
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), net: cluster.NewMemoryNetwork(), book: newBook(t), tally: newTally()}
	for i := range count {
		id := fmt.Sprintf("n%d", i+1)
		w.book.disks[id] = newDisk(rand.New(rand.NewPCG(seed, uint64(100+i))))
		w.nodes = append(w.nodes, &node{w: w, id: id, store: cluster.NewMemoryStore(), disk: w.book.disks[id]})
	}
	return w
}

// settings are shorter than the shipped ones, so that everything has its turn in a minute; some seeds give up early.
func (w *world) settings() fsm.Settings {
	s := fsm.DefaultSettings()
	if w.seed%3 == 0 {
		s.MaxAttempts, s.Queue = 2, "all"
	}
	s.NodeAway, s.NodeLost, s.Stuck = 3_000, 12_000, 20_000
	s.Builds, s.Keep = 2, 2
	for p := range s.Deadlines {
		s.Deadlines[p] = 20_000
	}
	return s
}

// form starts the nodes and makes them a cluster: n1 begins, the others join by token.
func (w *world) form() {
	for _, n := range w.nodes {
		n.start()
	}
	first := w.nodes[0]
	if err := first.cluster.Bootstrap(first.id); err != nil {
		w.t.Fatal(err)
	}
	w.propose(fsm.ClusterInit{ID: "sim", Settings: w.settings(), Node: fsm.Node{ID: first.id, ClusterAddr: first.id, Incarnation: first.id},
		Token: fsm.Token{ID: "t1", Name: "root", Hash: []byte("root")}})
	for _, n := range w.nodes[1:] {
		token := strings.Repeat(n.id, 32)
		w.propose(fsm.JoinTokenCreate{ID: token, ExpiresAt: 1 << 50})
		w.propose(fsm.NodeJoin{TokenID: token, Node: fsm.Node{ID: n.id, ClusterAddr: n.id, Incarnation: n.id}})
	}
	w.until(time.Minute, "all nodes vote and are ready", func() string {
		voters, ready := 0, 0
		for _, m := range first.cluster.Members() {
			if m.Voter {
				voters++
			}
		}
		for n := range first.fsm.State().Nodes() {
			if n.State == fsm.NodeReady {
				ready++
			}
		}
		if voters == len(w.nodes) && ready == len(w.nodes) {
			return ""
		}
		return fmt.Sprintf("%d vote, %d are ready", voters, ready)
	})
	for _, n := range w.nodes {
		n.known = true
	}
}

func (w *world) propose(b fsm.Body) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := w.nodes[0].cluster.Propose(ctx, fsm.NewCommand(b, "test")); err != nil {
		w.t.Fatalf("%s: %v", b.Kind(), err)
	}
}

// until waits until missing has nothing to say.
func (w *world) until(limit time.Duration, what string, missing func() string) {
	w.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		last := missing()
		if last == "" {
			return
		}
		if time.Since(began) > limit {
			w.fatalf("not within %s: %s: %s", limit, what, last)
		}
	}
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *world) stop() {
	for _, n := range w.nodes {
		n.kill()
	}
}

func (w *world) choose(which func(*node) bool) *node {
	fit := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !which(n) })
	if len(fit) == 0 {
		return nil
	}
	return fit[w.rng.IntN(len(fit))]
}

// faults are what misbehave chooses from; each says whether it did something.
var faults = []struct {
	name   string
	weight int
	do     func(w *world) bool
}{
	{"kill", 4, func(w *world) bool { return w.kill(w.choose((*node).running)) }},
	{"kill leader", 3, func(w *world) bool { return w.kill(w.choose((*node).leads)) }},
	{"stop", 1, func(w *world) bool {
		n := w.choose((*node).running)
		if n != nil {
			n.close()
		}
		return n != nil
	}},
	{"start", 7, func(w *world) bool {
		n := w.choose(func(n *node) bool { return !n.running() })
		if n != nil {
			n.start()
		}
		return n != nil
	}},
	{"isolate", 2, func(w *world) bool { w.net.Isolate(w.nodes[w.rng.IntN(len(w.nodes))].id); return true }},
	{"isolate leader", 2, func(w *world) bool {
		n := w.choose((*node).leads)
		if n != nil {
			w.net.Isolate(n.id)
		}
		return n != nil
	}},
	{"partition", 1, func(w *world) bool {
		perm := w.rng.Perm(len(w.nodes))
		var side []string
		for _, i := range perm[:1+w.rng.IntN(len(perm)-1)] {
			side = append(side, w.nodes[i].id)
		}
		w.net.Partition(side...)
		return true
	}},
	{"one-way cut", 2, func(w *world) bool {
		perm := w.rng.Perm(len(w.nodes))
		w.net.Cut(w.nodes[perm[0]].id, w.nodes[perm[1]].id)
		return true
	}},
	{"heal", 5, func(w *world) bool { w.net.Heal(); return true }},
}

func (w *world) kill(n *node) bool {
	if n != nil {
		n.kill()
	}
	return n != nil
}

// misbehave lets faults happen for a time.
func (w *world) misbehave(span time.Duration) {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	for end := time.Now().Add(span); time.Now().Before(end); {
		time.Sleep(time.Duration(50+w.rng.IntN(3000)) * time.Millisecond)
		at := w.rng.IntN(sum)
		for _, f := range faults {
			if at -= f.weight; at < 0 {
				if f.do(w) {
					w.tally.count(f.name)
				}
				break
			}
		}
	}
}

// recover ends all faults.
func (w *world) recover() {
	w.net.Heal()
	for _, n := range w.nodes {
		if !n.running() {
			n.start()
		}
	}
}
