package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"kontiki/errs"
)

// machine drives a state machine as a Raft loop would, with IDs and times that are the same in every run.
type machine struct {
	t     testing.TB
	f     *FSM
	index uint64
	term  uint64
	serial
}

// serial stamps commands: the n-th one has the ID "c<n>" and a time n seconds after second one million.
type serial struct{ n int }

func (s *serial) stamp(b Body) Command {
	s.n++
	return Command{ID: fmt.Sprintf("c%d", s.n), Kind: b.Kind(), Time: Time(1_000_000_000 + s.n*1000), Actor: "alice", Body: encode(b)}
}

func empty(t testing.TB) *machine { return &machine{t: t, f: New(), term: 1} }

// three gives a machine with a cluster of the nodes n1, n2 and n3, of which n1 made it.
func three(t testing.TB) *machine {
	m := empty(t)
	m.ok(initial())
	m.join("n2", "n3")
	return m
}

func initial() ClusterInit {
	return ClusterInit{ID: "cluster-1", Settings: DefaultSettings(), Node: node("n1"),
		Token: Token{ID: "t1", Name: "root", Role: "admin", Hash: []byte("hash of root")}}
}

func node(id string) Node {
	return Node{ID: id, ClusterAddr: id + ":7401", APIAddr: id + ":7400", IngressAddr: id + ":7480", Incarnation: "data of " + id}
}

func (m *machine) join(ids ...string) {
	m.t.Helper()
	for _, id := range ids {
		m.ok(JoinTokenCreate{ID: secret(id), ExpiresAt: 2_000_000_000})
		m.ok(NodeJoin{TokenID: secret(id), Node: node(id)})
	}
}

// secret, digest and nth name things by a short label.
func secret(label string) string { s := sha256.Sum256([]byte(label)); return hex.EncodeToString(s[:]) }

func digest(label string) string { return "sha256:" + secret(label) }

func nth(n int) string { return fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G%04d", n) }

// send applies one entry of ready commands.
func (m *machine) send(cmds ...Command) []Result {
	encoded := make([][]byte, len(cmds))
	for i, c := range cmds {
		encoded[i] = c.Encode()
	}
	m.index++
	return m.f.Apply(m.index, m.term, EncodeEntry(encoded))
}

// ok applies a command that must take effect.
func (m *machine) ok(b Body) Result {
	m.t.Helper()
	r := m.send(m.stamp(b))[0]
	if r.Err != nil {
		m.t.Fatalf("%s is refused: %s: %v", b.Kind(), r.Err.Code, r.Err)
	}
	return r
}

// refuse applies a command that must be refused with the code and change no object.
func (m *machine) refuse(code errs.Code, b Body) *errs.Error {
	m.t.Helper()
	before := m.objects()
	r := m.send(m.stamp(b))[0]
	if got := errs.CodeOf(errOf(r)); got != code {
		m.t.Fatalf("%s %+v gives code %q (%v), want %q", b.Kind(), b, got, r.Err, code)
	}
	if m.objects() != before {
		m.t.Fatalf("%s %+v was refused and yet changed something", b.Kind(), b)
	}
	if r.Err.Message == "" || strings.Contains(r.Err.Message, "%!") {
		m.t.Fatalf("%s has the message %q", b.Kind(), r.Err.Message)
	}
	return r.Err
}

// settings gives the command that replaces the settings in force.
func (m *machine) settings(s Settings) SettingsPut {
	return SettingsPut{From: m.state().Cluster().ModifyIndex, Settings: s}
}

func errOf(r Result) error {
	if r.Err == nil {
		return nil
	}
	return r.Err
}

// objects gives a digest of all objects, without audit and remembered results.
func (m *machine) objects() string {
	s := m.f.snapshot(m.index)
	s.client, s.node, s.audit = ring[remembered]{}, ring[remembered]{}, ring[Audit]{}
	return s.Hash()
}

func (m *machine) hash() string { return hashOf(m.f) }

func hashOf(f *FSM) string { return f.Snapshot().(*Snapshot).Hash() }

func (m *machine) state() *State { return m.f.State() }

func (m *machine) deployment(id string) *Deployment {
	m.t.Helper()
	d := m.state().Deployment(id)
	if d == nil {
		m.t.Fatalf("there is no deployment %s", id)
	}
	return d
}

// create queues deployment n of a project that is made if need be.
func (m *machine) create(n int, project string) string {
	m.t.Helper()
	m.ok(creation(n, project))
	return nth(n)
}

func creation(n int, project string) DeploymentCreate {
	return DeploymentCreate{ID: nth(n), Project: project, Create: true, Spec: DefaultSpec(), Nodes: []string{"n1", "n2"},
		Source: Source{Type: SourceUpload, Digest: digest(nth(n)), Size: 100, Format: "tar.gz"}}
}

// start queues a deployment and takes it out of the queue: n1 builds, n1 and n2 are its targets.
func (m *machine) start(n int, project string) string {
	m.t.Helper()
	id := m.create(n, project)
	m.ok(DeploymentStart{ID: id, Builder: "n1", Targets: []string{"n2", "n1"}})
	return id
}

// report gives the report of a node's pending step in the phase at hand, with what belongs into it.
func (m *machine) report(id, node string) StepReport {
	m.t.Helper()
	d := m.deployment(id)
	s := d.Step(d.Phase, node)
	if s == nil {
		m.t.Fatalf("node %s has no step in %s", node, d.Phase)
	}
	r := StepReport{StepKey: StepKey{Deployment: id, Phase: d.Phase, Attempt: s.Attempt, Node: node}, Message: "done by " + node}
	switch d.Phase {
	case PhaseBuilding:
		r.Artifact = &Artifact{Content: digest("content"), Format: "tar.zst", Manifest: digest("manifest"), Files: 3, Bytes: 300}
		r.Held = []Held{{Digest: digest("content"), Size: 70, Nodes: []string{node}}}
	case PhaseUpdatingRoutes:
		r.Instance = &Instance{Node: node, Endpoint: "http://" + node + ":80"}
	}
	return r
}

// until reports steps done until the deployment is in the phase.
func (m *machine) until(id string, phase Phase) {
	m.t.Helper()
	for d := m.deployment(id); d.Phase != phase; d = m.deployment(id) {
		if d.Status != StatusRunning {
			m.t.Fatalf("deployment %s is %s in %s on its way to %s", id, d.Status, d.Phase, phase)
		}
		for _, s := range d.Steps {
			if s.Phase == d.Phase && s.State == StepPending {
				m.ok(m.report(id, s.Node))
				break
			}
		}
	}
}

// activate brings a new deployment of the project all the way.
func (m *machine) activate(n int, project string) string {
	m.t.Helper()
	id := m.start(n, project)
	m.until(id, PhaseActive)
	return id
}

func snapshotBytes(t testing.TB, f *FSM) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := f.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("snapshot: %d bytes, said to be %d, %v", b.Len(), n, err)
	}
	return b.Bytes()
}

func ids[T any](seq func(yield func(*T) bool), id func(*T) string) string {
	var out []string
	for o := range seq {
		out = append(out, id(o))
	}
	return strings.Join(out, " ")
}
