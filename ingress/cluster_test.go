package ingress

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"kontiki/fsm"
)

// world is a real state machine that tests drive through Apply.
type world struct {
	t     testing.TB
	fsm   *fsm.FSM
	mu    sync.Mutex
	index uint64
}

func newWorld(t testing.TB, nodes ...string) *world {
	t.Helper()
	w := &world{t: t, fsm: fsm.New()}
	first := fsm.Node{ID: nodes[0], ClusterAddr: nodes[0] + ":1"}
	w.apply(fsm.ClusterInit{ID: "c", Settings: fsm.DefaultSettings(), Node: first,
		Token: fsm.Token{ID: "t", Name: "admin", Role: "admin", Hash: []byte("h")}})
	for _, n := range nodes[1:] {
		token := fmt.Sprintf("%x", sha256.Sum256([]byte(n)))
		w.apply(fsm.JoinTokenCreate{ID: token, ExpiresAt: fsm.Now() + 60_000})
		w.apply(fsm.NodeJoin{TokenID: token, Node: fsm.Node{ID: n, ClusterAddr: n + ":1"}})
		w.apply(fsm.NodeStatus{ID: n, State: fsm.NodeReady, Reason: "test"})
	}
	return w
}

func (w *world) apply(body fsm.Body) fsm.Result {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	cmd := fsm.NewCommand(body, "test")
	r := w.fsm.Apply(w.index, 1, fsm.EncodeEntry([][]byte{cmd.Encode()}))[0]
	if r.Err != nil {
		w.t.Fatalf("apply %s: %v", cmd.Kind, r.Err)
	}
	return r
}

// deploy brings a new deployment to the phase; the instances are on the targets.
func (w *world) deploy(project string, until fsm.Phase, targets ...string) string {
	w.t.Helper()
	id := fsm.NewID()
	w.apply(fsm.DeploymentCreate{ID: id, Project: project, Create: true, Spec: fsm.DefaultSpec(),
		Source: fsm.Source{Type: fsm.SourceUpload, Digest: fmt.Sprintf("sha256:%064d", 0), Format: "tar"}})
	w.apply(fsm.DeploymentStart{ID: id, Builder: targets[0], Targets: targets})
	for {
		d := w.fsm.State().Deployment(id)
		if d.Phase == until {
			return id
		}
		for _, s := range d.Steps {
			if s.State != fsm.StepPending {
				continue
			}
			w.apply(fsm.StepReport{StepKey: fsm.StepKey{Deployment: id, Phase: s.Phase, Attempt: s.Attempt, Node: s.Node},
				Instance: instanceIn(s.Phase, s.Node)})
		}
	}
}

func instanceIn(phase fsm.Phase, node string) *fsm.Instance {
	if phase != fsm.PhaseCopyingFiles {
		return nil
	}
	return &fsm.Instance{Node: node}
}

var errAbsent = errors.New("no such release")

// site is a Local that knows some releases and answers with the release's ID and what it was asked.
type site struct {
	mu       sync.Mutex
	releases map[string]bool
	handle   func(w http.ResponseWriter, r *http.Request, deployment string)
	served   []*http.Request
}

func newSite(releases ...string) *site {
	s := &site{releases: map[string]bool{}}
	for _, id := range releases {
		s.releases[id] = true
	}
	return s
}

func (s *site) add(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases[id] = true
}

func (s *site) ServeRelease(w http.ResponseWriter, r *http.Request, _, deployment string) error {
	s.mu.Lock()
	known, handle := s.releases[deployment], s.handle
	s.served = append(s.served, r)
	s.mu.Unlock()
	if !known {
		w.Header().Set("Cache-Control", "of who answers not")
		return errAbsent
	}
	if handle != nil {
		handle(w, r, deployment)
		return nil
	}
	fmt.Fprint(w, deployment)
	return nil
}

func (s *site) last() *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.served) == 0 {
		return nil
	}
	return s.served[len(s.served)-1]
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.served)
}

// network is the Peers of a test: addresses by node.
type network struct {
	transport *http.Transport
	addrs     map[string]string
}

func (n *network) Peer(node string) (string, http.RoundTripper, bool) {
	addr, ok := n.addrs[node]
	return "http://" + node + "@" + addr, n, ok
}

// RoundTrip is a transport that wants the node's ID in the URL, as the cluster's does.
func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	if id := r.URL.User.Username(); n.addrs[id] != r.URL.Host {
		return nil, fmt.Errorf("node %q is not at %s", id, r.URL.Host)
	}
	return n.transport.RoundTrip(r)
}

// node is one node's ingress with a listener for users and one for the other nodes.
type node struct {
	*Ingress
	site  *site
	users *httptest.Server
	peers *httptest.Server
}

// nodes starts an ingress per node over one state machine.
func (w *world) nodes(ids ...string) map[string]*node {
	w.t.Helper()
	net := &network{transport: &http.Transport{DisableCompression: true}, addrs: map[string]string{}}
	w.t.Cleanup(net.transport.CloseIdleConnections)
	all := map[string]*node{}
	for _, id := range ids {
		n := &node{site: newSite()}
		n.Ingress = New(Config{NodeID: id, States: w.fsm, Local: n.site, Peers: net})
		n.users = httptest.NewServer(n.Handler())
		n.peers = httptest.NewServer(n.RelayHandler())
		w.t.Cleanup(n.users.Close)
		w.t.Cleanup(n.peers.Close)
		net.addrs[id] = n.peers.Listener.Addr().String()
		all[id] = n
	}
	return all
}

// get asks a node's ingress for a host.
func (n *node) get(t *testing.T, host string, edit ...func(*http.Request)) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.users.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for _, f := range edit {
		f(req)
	}
	res, err := n.users.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}
