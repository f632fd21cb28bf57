package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// view is what this node sees of its group: who leads, and, while it leads itself, who does not answer.
type view struct {
	elections atomic.Uint64

	mu      sync.Mutex
	leader  Member // ID is "" when there is none
	since   time.Time
	changed chan struct{}        // closed and replaced when leader changes
	silent  map[string]time.Time // followers whose heartbeats fail, with the last contact
}

func (v *view) init() {
	v.since, v.changed, v.silent = time.Now(), make(chan struct{}), map[string]time.Time{}
}

// look gives the leader, since when it has been that one (or none), and a channel that is closed at the next change.
func (v *view) look() (leader Member, since time.Time, changed <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.leader, v.since, v.changed
}

func (v *view) interested(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.LeaderObservation, raft.RaftState, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
		return true
	}
	return false
}

// watch follows what Raft reports. An observation says only that something has changed; who leads is asked anew, so
// that none that was dropped leaves a wrong picture behind.
func (c *Cluster) watch(observations <-chan raft.Observation) {
	for {
		c.view.update(c.raft.LeaderWithID())
		select {
		case o := <-observations:
			c.view.note(o.Data)
		case <-c.life.ctx.Done():
			return
		}
	}
}

func (v *view) update(address raft.ServerAddress, _ raft.ServerID) {
	id, addr := splitAddress(address)
	v.mu.Lock()
	defer v.mu.Unlock()
	if id == v.leader.ID && addr == v.leader.Addr {
		return
	}
	v.leader, v.since = Member{ID: id, Addr: addr, Leader: id != ""}, time.Now()
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *view) note(data any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch o := data.(type) {
	case raft.RaftState:
		clear(v.silent) // another role, another picture
		if o == raft.Candidate {
			v.elections.Add(1)
		}
	case raft.FailedHeartbeatObservation:
		v.silent[string(o.PeerID)] = o.LastContact
	case raft.ResumedHeartbeatObservation:
		delete(v.silent, string(o.PeerID))
	}
}

// PeerHealth gives, on the leader, for each other member how long it has been out of contact, by this node's own
// clock; 0 while it answers. A fresh leader has not heard of anybody's silence yet: until it could have, it gives the
// least there is above 0, which says neither that a member answers nor that it is gone. On other nodes it is empty.
func (c *Cluster) PeerHealth() map[string]time.Duration {
	return c.aged(c.silences())
}

// aged raises what a fresh leader takes for an answer: a heartbeat to a stopped node fails after one try only.
func (c *Cluster) aged(health map[string]time.Duration) map[string]time.Duration {
	if _, since, _ := c.view.look(); time.Since(since) >= 2*c.cfg.Timing.Try {
		return health
	}
	for id, silent := range health {
		health[id] = max(silent, 1)
	}
	return health
}

// silences gives, on the leader, for each other member how long its heartbeats have failed, 0 when they have not.
func (c *Cluster) silences() map[string]time.Duration {
	out := map[string]time.Duration{}
	if !c.IsLeader() {
		return out
	}
	members := c.Members()
	c.view.mu.Lock()
	defer c.view.mu.Unlock()
	for _, m := range members {
		if m.ID == c.cfg.NodeID {
			continue
		}
		out[m.ID] = 0
		if last, ok := c.view.silent[m.ID]; ok {
			out[m.ID] = max(time.Since(last), 1)
		}
	}
	return out
}
