package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

const (
	// maxForwards is how many groups a follower has under way to the leader: while one is being committed there, the
	// next is on the wire.
	maxForwards = 2
	// maxAnswer bounds what is read of a peer's answer.
	maxAnswer = 8 << 20

	pathPropose   = "/cluster/propose"
	pathReadIndex = "/cluster/read-index"
	pathStatus    = "/cluster/status"
	pathRemoval   = "/cluster/check-removal"
)

// answer is the JSON body of node-to-node HTTP.
type answer struct {
	Error *errs.Error `json:"error,omitempty"`
	// Leader is who leads as far as the refusing node knows.
	Leader *Member `json:"leader,omitempty"`
	Index  uint64  `json:"index,omitempty"`
}

// sendGroup takes the next group and sends it to the leader, when a slot is free and there is something to send.
func (c *Cluster) sendGroup(leader Member, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
	default:
		return false
	}
	group := c.queue.take()
	if len(group) == 0 {
		<-slots
		return false
	}
	c.life.done.Go(func() {
		release := func() {
			<-slots
			c.queue.mu.Lock()
			defer c.queue.mu.Unlock()
			c.queue.poke()
		}
		c.forward(leader, group, release)
	})
	return true
}

// forward sends a group to the leader. A lost or late answer says nothing about the group's fate, so it is sent again,
// with the same IDs, to whoever leads then. The try is given up at once when another leader is known: one that was
// stopped would keep its connections open and never answer.
func (c *Cluster) forward(leader Member, group []*proposal, release func()) {
	now, _, changed := c.view.look()
	var results []fsm.Result
	err := errors.New("the leader has changed")
	if now.ID == leader.ID {
		results, err = c.post(leader, group, changed)
	}
	if err != nil {
		c.pause(c.life.ctx, changed, c.retryIn())
		c.retry(group, err)
		release()
		return
	}
	release()
	c.applied(results)
	deliver(group, results, nil)
}

// post carries out one try.
func (c *Cluster) post(leader Member, group []*proposal, changed <-chan struct{}) ([]fsm.Result, error) {
	if err := fault.Point("cluster.forward.before"); err != nil {
		return nil, err
	}
	data := make([][]byte, len(group))
	for i, p := range group {
		data[i] = p.data
	}
	ctx, cancel := c.tryUntil(c.life.ctx, changed)
	defer cancel()
	body, err := c.call(ctx, request{http.MethodPost, leader, pathPropose, fsm.EncodeEntry(data)})
	if err != nil {
		return nil, err
	}
	results, err := fsm.DecodeResults(body)
	if err == nil && len(results) != len(group) {
		err = fmt.Errorf("%d results for %d commands", len(results), len(group))
	}
	if err != nil {
		return nil, wrap("read the leader's results", err)
	}
	return results, fault.Point("cluster.forward.after")
}

// applied waits until this node shows what has been written through it. A node that cannot keep up does not keep the
// writer from its answer: the write is committed, and the index in the result says what to wait for.
func (c *Cluster) applied(results []fsm.Result) {
	var index uint64
	for _, r := range results {
		index = max(index, r.Index)
	}
	ctx, cancel := context.WithTimeout(c.life.ctx, c.cfg.Timing.Hold)
	defer cancel()
	if err := c.cfg.Machine.Wait(ctx, index); err != nil {
		c.log.Warn("this node does not keep up with the leader", "index", index, "applied", c.cfg.Machine.Applied(), "err", err)
	}
}

// tryUntil gives a context for one try: it ends after Timing.Try, and when the leader changes.
func (c *Cluster) tryUntil(parent context.Context, changed <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(parent, c.cfg.Timing.Try)
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// request is one HTTP request to a peer.
type request struct {
	method string
	to     Member
	path   string
	body   []byte
}

// call sends a request and gives the body of a good answer. An error that the peer gave is an *errs.Error.
func (c *Cluster) call(ctx context.Context, r request) (body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, r.method, PeerURL(r.to.ID, r.to.Addr, r.path), bytes.NewReader(r.body))
	if err != nil {
		return nil, wrap("ask node "+r.to.ID, err)
	}
	resp, err := c.cfg.Network.Client().Do(req)
	if err != nil {
		return nil, wrap("ask node "+r.to.ID, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, wrap("read the answer of node "+r.to.ID, err)
	}
	if resp.StatusCode == http.StatusOK {
		return body, nil
	}
	var a answer
	if json.Unmarshal(body, &a) != nil || a.Error == nil {
		return nil, fmt.Errorf("node %s answers %s", r.to.ID, resp.Status)
	}
	return nil, a.Error
}

// retryIn is how long to leave a leader alone that could not be reached.
func (c *Cluster) retryIn() time.Duration { return 10 * c.cfg.Timing.Commit }
