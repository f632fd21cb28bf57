package cluster

import "time"

// LeaderContact gives how long ago this node heard from a leader, by its own clock: 0 on the leader itself, -1 when it
// has not since it started.
func (c *Cluster) LeaderContact() time.Duration {
	if c.IsLeader() {
		return 0
	}
	last := c.raft.LastContact()
	if last.IsZero() {
		return -1
	}
	return time.Since(last)
}
