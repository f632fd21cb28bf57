package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"kontiki/errs"
	"kontiki/fsm"
)

// clients write through random nodes. Each retries a write under its key, through other nodes, until it is answered: so
// in the end it knows what became of every one.
type clients struct {
	w    *world
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	acked    map[string]uint64            // key → index
	metadata map[string]map[string]string // project → what the one client that updates it has had acknowledged
	deployed map[string]string            // deployment → project
}

func (w *world) startClients() *clients {
	c := &clients{w: w, stop: make(chan struct{}), acked: map[string]uint64{}, metadata: map[string]map[string]string{}, deployed: map[string]string{}}
	for i := range 3 {
		one := &client{clients: c, name: fmt.Sprintf("client-%d", i), rng: rand.New(rand.NewPCG(w.seed, uint64(10+i)))}
		c.wg.Go(one.run)
	}
	return c
}

// finish lets every client have its last answer.
func (c *clients) finish() {
	close(c.stop)
	c.wg.Wait()
}

type client struct {
	*clients
	name   string
	rng    *rand.Rand
	writes int
}

func (c *client) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

func (c *client) run() {
	c.write("project", func(*node) (fsm.Body, error) { return fsm.ProjectCreate{Name: c.name}, nil })
	for !c.stopped() {
		switch at := c.rng.IntN(10); {
		case at < 4:
			c.update()
		case at < 8:
			c.deploy()
		case at < 9:
			c.cancel()
		default:
			c.throwAway()
		}
		time.Sleep(time.Duration(c.rng.IntN(3000)) * time.Millisecond)
	}
}

// update sets a value of the client's own project.
func (c *client) update() {
	k, v := fmt.Sprintf("k%d", c.rng.IntN(8)), fmt.Sprint("v", c.writes)
	body := fsm.ProjectUpdate{Name: c.name, Metadata: map[string]string{k: v}}
	if r := c.write("update", func(*node) (fsm.Body, error) { return body, nil }); r.Err == nil {
		c.readBack(k, v)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.metadata[c.name] == nil {
			c.metadata[c.name] = map[string]string{}
		}
		c.metadata[c.name][k] = v
	}
}

// readBack reads what was acknowledged through another node; an answer that is not current is worse than none.
func (c *client) readBack(k, v string) {
	n := c.w.nodes[c.rng.IntN(len(c.w.nodes))]
	if !n.running() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	f := n.fsm
	index, err := n.cluster.ReadIndex(ctx)
	if err != nil || f.Wait(ctx, index) != nil {
		return
	}
	c.w.tally.count("reads")
	if p := f.State().Project(c.name); p == nil || p.Metadata[k] != v {
		c.w.t.Errorf("seed %d: node %s reads project %s as %+v at index %d, after %s=%s was acknowledged", c.w.seed, n.id, c.name, p, index, k, v)
	}
}

// deploy uploads through a node and has it deployed. The nodes know nothing of each other's attempts: each makes an ID.
func (c *client) deploy() {
	project := fmt.Sprintf("site-%d", c.rng.IntN(3))
	content := fmt.Appendf(nil, "%s %d", c.name, c.writes)
	spec := fsm.DefaultSpec()
	spec.Replicas = []fsm.Replicas{fsm.ReplicasAll, fsm.ReplicasAll, 1, 2}[c.rng.IntN(4)]
	r := c.write("deploy", func(n *node) (fsm.Body, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		held, err := (&blobs{n: n, client: n.net.Client()}).Put(ctx, bytes.NewReader(content))
		return fsm.DeploymentCreate{ID: fsm.NewID(), Project: project, Create: true, Spec: spec, Nodes: held.Nodes,
			Source: fsm.Source{Type: fsm.SourceUpload, Digest: held.Digest, Size: held.Size, Format: "tar"}}, err
	})
	var made fsm.DeploymentCreated
	if r.Err != nil {
		return
	}
	if err := r.Decode(&made); err != nil {
		c.w.t.Errorf("seed %d: %v", c.w.seed, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deployed[made.ID] = project
	c.w.tally.count("deployments")
}

// cancel stops a deployment, if it is not too late.
func (c *client) cancel() {
	c.mu.Lock()
	var id string
	for d := range c.deployed {
		id = max(id, d)
	}
	c.mu.Unlock()
	if id != "" {
		c.write("cancel", func(*node) (fsm.Body, error) { return fsm.DeploymentCancel{ID: id}, nil })
	}
}

// throwAway deletes a project that has been deployed to meanwhile, or makes it.
func (c *client) throwAway() {
	content := fmt.Appendf(nil, "%s %d", c.name, c.writes)
	c.write("brief", func(n *node) (fsm.Body, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		held, err := (&blobs{n: n, client: n.net.Client()}).Put(ctx, bytes.NewReader(content))
		return fsm.DeploymentCreate{ID: fsm.NewID(), Project: "brief", Create: true, Spec: fsm.DefaultSpec(), Nodes: held.Nodes,
			Source: fsm.Source{Type: fsm.SourceUpload, Digest: held.Digest, Size: held.Size, Format: "tar"}}, err
	})
	time.Sleep(time.Duration(c.rng.IntN(8000)) * time.Millisecond)
	c.write("delete", func(*node) (fsm.Body, error) { return fsm.ProjectDelete{Name: "brief"}, nil })
}

// write has a command committed under a key of its own and gives the answer of the state machine.
func (c *client) write(what string, body func(*node) (fsm.Body, error)) fsm.Result {
	c.writes++
	key := fmt.Sprintf("%s/%d/%s", c.name, c.writes, what)
	request := sha256.Sum256([]byte(key))
	for {
		n := c.w.nodes[c.rng.IntN(len(c.w.nodes))]
		r, err := c.try(n, key, request[:], body)
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			if r.Err == nil {
				c.acked[key] = r.Index
				c.w.tally.count("writes")
			}
			return r
		}
		c.w.tally.count("retries")
		time.Sleep(time.Duration(50+c.rng.IntN(500)) * time.Millisecond)
	}
}

var errDown = errors.New("connection refused")

// try makes one attempt; a nil error means that the state machine has answered.
func (c *client) try(n *node, key string, request []byte, body func(*node) (fsm.Body, error)) (fsm.Result, error) {
	if !n.running() {
		return fsm.Result{}, errDown
	}
	proposer := n.cluster
	b, err := body(n)
	if err != nil {
		return fsm.Result{}, err
	}
	cmd := fsm.NewCommand(b, c.name)
	cmd.ID, cmd.Request = key, request
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	r, err := proposer.Propose(ctx, cmd)
	if r.Err != nil {
		if errs.CodeOf(r.Err) == errs.TooMany {
			return r, r.Err
		}
		return r, nil
	}
	return r, err
}
