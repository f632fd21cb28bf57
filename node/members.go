package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"kontiki/api"
	"kontiki/cluster"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/pki"
)

// Admit takes in a node that shows a good join token: the token is used up and the node recorded in one log entry, then
// its certificate is made here.
func (n *Node) Admit(ctx context.Context, r api.JoinRequest) (api.JoinAnswer, error) {
	fingerprint, secret, err := pki.ParseJoinToken(r.Token)
	if err != nil {
		return api.JoinAnswer{}, err
	}
	if fingerprint != n.bundle.CA.Fingerprint() {
		return api.JoinAnswer{}, errs.New(errs.JoinToken, "the join token is another cluster's").WithHint("make one here with: kontiki token join")
	}
	if r.Node.ClusterAddr == "" || len(r.CSR) == 0 {
		return api.JoinAnswer{}, errs.New(errs.Invalid, "a joining node gives its addresses and a certificate request").WithField("node")
	}
	cert, err := n.bundle.CA.IssueNode(r.Node.ID, r.CSR, hostsOf(r.Node.ClusterAddr, r.Node.APIAddr))
	if err != nil {
		return api.JoinAnswer{}, errs.New(errs.Invalid, "issue a certificate for node %q: %w", r.Node.ID, err).WithField("csr")
	}
	if err := n.checkJoinToken(ctx, hexHash(secret)); err != nil {
		return api.JoinAnswer{}, err
	}
	body := fsm.NodeJoin{TokenID: hexHash(secret), Node: fsm.Node{ID: r.Node.ID, ClusterAddr: r.Node.ClusterAddr, APIAddr: r.Node.APIAddr,
		IngressAddr: r.Node.IngressAddr, Engine: r.Node.Engine, Version: r.Node.Version, Incarnation: r.Node.Incarnation}}
	cmd := fsm.NewCommand(body, "join:"+r.Node.ID)
	result, err := n.cluster.Propose(ctx, cmd)
	if err == nil && result.Err != nil {
		err = result.Err
	}
	if err != nil {
		return api.JoinAnswer{}, err
	}
	if err := n.fsm.Wait(ctx, result.Index); err != nil {
		return api.JoinAnswer{}, err
	}
	answer := api.JoinAnswer{ClusterID: n.identity.ClusterID, Certificate: cert, CACert: n.bundle.CA.Cert, CAKey: n.bundle.CA.Key}
	for peer := range n.fsm.State().Nodes() {
		answer.Nodes = append(answer.Nodes, *peer)
	}
	return answer, nil
}

// hostsOf gives the hosts of the addresses, for the certificate.
func hostsOf(addrs ...string) []string {
	var out []string
	for _, a := range addrs {
		if host, _, err := net.SplitHostPort(a); err == nil && host != "" {
			out = append(out, host)
		}
	}
	return out
}

// checkJoinToken looks a join token up before anything is proposed: whoever has no good one writes nothing to the log.
func (n *Node) checkJoinToken(ctx context.Context, id string) error {
	if n.fsm.State().JoinToken(id) == nil { // it may have been made a moment ago, through another node
		if err := n.catchUp(ctx); err != nil {
			return err
		}
	}
	if n.fsm.State().JoinToken(id) == nil {
		return errs.New(errs.JoinToken, "the join token is unknown or expired").WithHint("make a new one with: kontiki token join")
	}
	return nil
}

// CheckRemoval refuses the removal of a node that the group could not do without.
func (n *Node) CheckRemoval(id string) error { return n.cluster.CheckRemoval(id) }

// authorize is asked for every connection between nodes: who was removed stays outside.
func (n *Node) authorize(nodeID string) error {
	if n.fsm.State().Removed(nodeID) {
		return errs.New(errs.RemovedPeer, "node %q was removed from this cluster", nodeID).WithHint("join under a new ID, on an empty data directory")
	}
	return nil
}

// known refuses a request of a node that was removed after it had connected.
func (n *Node) known(r *http.Request) error {
	if r.TLS == nil {
		return errs.New(errs.Unauthorized, "nodes are asked over TLS only")
	}
	return n.authorize(pki.NodeID(*r.TLS))
}

// Status says how the nodes stand in the Raft group; those that do not answer within half a second count as not
// reachable.
func (n *Node) Status(ctx context.Context) (api.ClusterStatus, error) {
	leader, _, term := n.cluster.Leader()
	stats := n.cluster.Stats()
	s := n.fsm.State()
	out := api.ClusterStatus{ID: n.identity.ClusterID, Node: n.identity.NodeID, Leader: leader, Term: term, Applied: n.fsm.Applied(),
		Commit: stats.CommitIndex}
	for node := range s.Nodes() {
		out.Peers = append(out.Peers, api.Peer{Node: *node})
	}
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for i := range out.Peers {
		wg.Go(func() { n.ask(ctx, &out.Peers[i], leader) })
	}
	wg.Wait()
	var most uint64
	for _, p := range out.Peers {
		most = max(most, p.MatchIndex)
	}
	for i := range out.Peers {
		if p := &out.Peers[i]; p.Reachable {
			p.Lag = most - p.MatchIndex
		}
	}
	return out, nil
}

func (n *Node) ask(ctx context.Context, p *api.Peer, leader string) {
	p.Role = n.roleOf(p.ID, leader)
	var st cluster.Status
	if p.ID == n.identity.NodeID {
		st, p.Reachable = n.cluster.Status(), true
	} else {
		p.Reachable = n.askPeer(ctx, p.ID, "/cluster/status", &st) == nil
	}
	p.MatchIndex = st.Applied
}

func (n *Node) roleOf(id, leader string) string {
	members := n.cluster.Members()
	i := slices.IndexFunc(members, func(m cluster.Member) bool { return m.ID == id })
	switch {
	case id == leader:
		return api.RoleLeader
	case i >= 0 && members[i].Voter:
		return api.RoleFollower
	}
	return api.RoleLearner
}

// Hashes commits a checkpoint and compares every node's state at it.
func (n *Node) Hashes(ctx context.Context) (api.Hashes, error) {
	r, err := n.cluster.Propose(ctx, fsm.NewCommand(fsm.Checkpoint{}, fsm.NodeActor(n.identity.NodeID)))
	if err == nil && r.Err != nil {
		err = r.Err
	}
	if err != nil {
		return api.Hashes{}, err
	}
	out := api.Hashes{Index: r.Index, Hashes: map[string]string{}, Errors: map[string]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for node := range n.fsm.State().Nodes() {
		wg.Go(func() {
			hash, err := n.hashOf(ctx, node.ID, r.Index)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Errors[node.ID] = err.Error()
				return
			}
			out.Hashes[node.ID] = hash
		})
	}
	wg.Wait()
	out.Equal = len(out.Errors) == 0
	for _, h := range out.Hashes {
		out.Equal = out.Equal && h == out.Hashes[n.identity.NodeID]
	}
	return out, nil
}

func (n *Node) hashOf(ctx context.Context, id string, index uint64) (string, error) {
	if id == n.identity.NodeID {
		return n.fsm.HashAt(ctx, index)
	}
	var hash string
	return hash, n.askPeer(ctx, id, "/hash/"+strconv.FormatUint(index, 10), &hash)
}

// serveHash answers another node's question for this node's hash at a checkpoint.
func (n *Node) serveHash(w http.ResponseWriter, r *http.Request) {
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 64)
	if err != nil {
		http.Error(w, "no log index", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	hash, err := n.fsm.HashAt(ctx, index)
	if err != nil {
		http.Error(w, err.Error(), errs.Status(errs.CodeOf(err)))
		return
	}
	_, _ = fmt.Fprintf(w, "%q", hash) // the asker is gone when this fails
}
