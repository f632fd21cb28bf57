package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"kontiki/errs"
	"kontiki/fsm"
)

// Status is what a node says of itself to others.
type Status struct {
	NodeID    string `json:"node"`
	ClusterID string `json:"cluster"`
	State     string `json:"state"`
	Leader    string `json:"leader"`
	Term      uint64 `json:"term"`
	// Applied is the index of the last entry its state machine has applied, Last that of the last one in its log.
	Applied uint64 `json:"applied"`
	Last    uint64 `json:"last"`
}

// Handler serves the node-to-node side: POST /cluster/propose, GET /cluster/read-index, GET /cluster/status and GET
// /cluster/check-removal?id=. The caller serves it where only nodes get in (Network.HTTP).
func (c *Cluster) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathPropose, c.servePropose)
	mux.HandleFunc("GET "+pathReadIndex, c.serveReadIndex)
	mux.HandleFunc("GET "+pathStatus, func(w http.ResponseWriter, r *http.Request) { c.reply(w, c.Status()) })
	mux.HandleFunc("GET "+pathRemoval, c.serveRemoval)
	return mux
}

// Status gives what GET /cluster/status answers.
func (c *Cluster) Status() Status {
	leader, _, term := c.Leader()
	return Status{
		NodeID: c.cfg.NodeID, ClusterID: c.cfg.ClusterID, State: c.raft.State().String(), Leader: leader, Term: term,
		Applied: c.cfg.Machine.Applied(), Last: c.raft.LastIndex(),
	}
}

// servePropose takes a follower's group into the leader's queue. What it refuses it refuses whole, and a group of
// which a part was committed comes again with the same IDs.
func (c *Cluster) servePropose(w http.ResponseWriter, r *http.Request) {
	entry, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2*maxGroupBytes))
	if err != nil {
		c.refuse(w, errs.New(errs.TooLarge, "read a forwarded group: %w", err))
		return
	}
	commands, err := fsm.DecodeEntry(entry)
	if err != nil {
		c.refuse(w, err)
		return
	}
	if !c.IsLeader() {
		leader, _, _ := c.view.look()
		c.refuse(w, notLeader(c.cfg.NodeID, leader.ID))
		return
	}
	results, err := c.proposeForeign(r.Context(), commands)
	if err != nil {
		c.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/cbor")
	c.write(w, fsm.EncodeResults(results))
}

func (c *Cluster) proposeForeign(ctx context.Context, commands [][]byte) ([]fsm.Result, error) {
	group := make([]*proposal, len(commands))
	for i, data := range commands {
		p, err := newProposal(data, true)
		if err != nil {
			return nil, err
		}
		group[i] = p
	}
	if err := c.queue.add(group...); err != nil {
		return nil, err
	}
	results := make([]fsm.Result, len(group))
	for i, p := range group {
		select {
		case o := <-p.done:
			if o.err != nil {
				return nil, o.err
			}
			results[i] = o.result
		case <-ctx.Done(): // the follower has given up, and comes again
			return nil, unknownOutcome("the follower did not wait for its results")
		}
	}
	return results, nil
}

func (c *Cluster) serveReadIndex(w http.ResponseWriter, r *http.Request) {
	if !c.IsLeader() {
		leader, _, _ := c.view.look()
		c.refuse(w, notLeader(c.cfg.NodeID, leader.ID))
		return
	}
	index, err := c.leaderIndex(r.Context())
	if err != nil {
		c.refuse(w, errs.New(errs.NotLeader, "read index: %w", err))
		return
	}
	c.reply(w, answer{Index: index})
}

func (c *Cluster) serveRemoval(w http.ResponseWriter, r *http.Request) {
	leader, _, _ := c.view.look()
	err := error(notLeader(c.cfg.NodeID, leader.ID))
	if c.IsLeader() {
		err = c.CheckRemoval(r.URL.Query().Get("id"))
	}
	if err != nil {
		c.refuse(w, err)
		return
	}
	c.reply(w, answer{})
}

// refuse answers with an error, and with the leader when this node is not it.
func (c *Cluster) refuse(w http.ResponseWriter, err error) {
	a := answer{Error: errs.From(err)}
	if leader, _, _ := c.view.look(); leader.ID != "" && leader.ID != c.cfg.NodeID {
		a.Leader = &leader
	}
	body, err := json.Marshal(a)
	if err != nil {
		c.log.Error("encode an answer to a peer", "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(errs.Status(a.Error.Code))
	c.write(w, body)
}

func (c *Cluster) reply(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		c.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	c.write(w, body)
}

// write sends a body; when that fails the peer is gone, and asks again if it wants to know.
func (c *Cluster) write(w http.ResponseWriter, body []byte) {
	if _, err := w.Write(body); err != nil && !errors.Is(err, context.Canceled) {
		c.log.Debug("answer a peer", "err", err)
	}
}
