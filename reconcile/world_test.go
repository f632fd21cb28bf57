package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"kontiki/fsm"
)

// world is a real state machine that tests bring into the state they need, by the commands that would.
type world struct {
	t     testing.TB
	f     *fsm.FSM
	index uint64
	term  uint64
	named map[string]string // IDs and digests → the names tests use
}

// newWorld makes a cluster of the named nodes, all of them ready.
func newWorld(t testing.TB, settings fsm.Settings, nodes ...string) *world {
	t.Helper()
	w := &world{t: t, f: fsm.New(), term: 1, named: map[string]string{}}
	w.must(fsm.ClusterInit{ID: "c1", Settings: settings, Node: member(nodes[0]), Token: fsm.Token{ID: "t1", Name: "root", Hash: []byte("root")}})
	for _, n := range nodes[1:] {
		w.must(fsm.JoinTokenCreate{ID: hash(n), ExpiresAt: 1 << 50})
		w.must(fsm.NodeJoin{TokenID: hash(n), Node: member(n)})
		w.must(fsm.NodeStatus{ID: n, State: fsm.NodeReady, Reason: "in contact"})
	}
	return w
}

func member(id string) fsm.Node {
	return fsm.Node{ID: id, ClusterAddr: id, APIAddr: id, IngressAddr: id, Incarnation: id}
}

func hash(name string) string { s := sha256.Sum256([]byte(name)); return hex.EncodeToString(s[:]) }

// id gives the deployment's ID of a name such as d7, digest that of a blob.
func (w *world) id(name string) string {
	var n int
	_, _ = fmt.Sscanf(name, "d%d", &n) // a name without a number is number 0
	id := fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G%04d", n)
	w.named[id] = name
	return id
}

func (w *world) digest(name string) string {
	d := "sha256:" + hash(name)
	w.named[d] = name
	return d
}

func (w *world) apply(cmds ...fsm.Command) []fsm.Result {
	encoded := make([][]byte, len(cmds))
	for i, c := range cmds {
		encoded[i] = c.Encode()
	}
	w.index++
	return w.f.Apply(w.index, w.term, fsm.EncodeEntry(encoded))
}

func (w *world) try(b fsm.Body) error {
	if r := w.apply(fsm.NewCommand(b, "test"))[0]; r.Err != nil {
		return r.Err
	}
	return nil
}

func (w *world) must(b fsm.Body) {
	w.t.Helper()
	if err := w.try(b); err != nil {
		w.t.Fatalf("%s %+v: %v", b.Kind(), b, err)
	}
}

func (w *world) deployment(name string) *fsm.Deployment {
	w.t.Helper()
	d := w.f.State().Deployment(w.id(name))
	if d == nil {
		w.t.Fatalf("there is no deployment %s", name)
	}
	return d
}

// create queues a deployment whose archive the given nodes hold.
func (w *world) create(name, project string, replicas fsm.Replicas, held ...string) {
	w.t.Helper()
	spec := fsm.DefaultSpec()
	spec.Replicas = replicas
	w.must(fsm.DeploymentCreate{ID: w.id(name), Project: project, Create: true, Spec: spec, Nodes: held,
		Source: fsm.Source{Type: fsm.SourceUpload, Digest: w.digest(name + ".tar"), Size: 10, Format: "tar"}})
}

// report reports a node's step in the phase at hand, done when failure is nil.
func (w *world) report(name, node string, failure *fsm.Failure) error {
	d := w.deployment(name)
	step := d.Step(d.Phase, node)
	if step == nil {
		return fmt.Errorf("%s has no step of %s in %s", node, name, d.Phase)
	}
	r := fsm.StepReport{StepKey: fsm.StepKey{Deployment: d.ID, Phase: d.Phase, Attempt: step.Attempt, Node: node}, Failure: failure}
	if failure == nil {
		switch d.Source.Type.RoleIn(d.Phase) {
		case fsm.RoleBuilder:
			r.Artifact = &fsm.Artifact{Content: d.Source.Digest, Format: "tar", Manifest: w.digest(name + ".manifest"), Files: 1, Bytes: 1}
			r.Held = []fsm.Held{{Digest: r.Artifact.Manifest, Size: 1, Nodes: []string{node}}}
		case fsm.RoleTarget:
			r.Instance = &fsm.Instance{Node: node}
		}
	}
	return w.try(r)
}

// until reports what is pending as done until the deployment is in the phase, or nothing is pending.
func (w *world) until(name string, phase fsm.Phase) {
	w.t.Helper()
	for d := w.deployment(name); d.Phase != phase; d = w.deployment(name) {
		if d.Status != fsm.StatusRunning {
			w.t.Fatalf("%s is %s in %s, on its way to %s", name, d.Status, d.Phase, phase)
		}
		i := slices.IndexFunc(d.Steps, func(s fsm.Step) bool { return s.Phase == d.Phase && s.State == fsm.StepPending })
		if i < 0 {
			return
		}
		if err := w.report(name, d.Steps[i].Node, nil); err != nil {
			w.t.Fatal(err)
		}
	}
}
