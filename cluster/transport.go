package cluster

import (
	"errors"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// keepTrying is for how long entries are offered to a follower that refuses connections before Raft is told that it
	// failed, tryEvery the pause between two offers. Raft waits twice as long after each failure, up to ten seconds, and
	// does not notice that the follower is back meanwhile: one that was restarted would stand idle for that long.
	keepTrying = 20 * time.Second
	tryEvery   = 100 * time.Millisecond
)

// transport is Raft's own, silent while the disk stalls and patient with followers that are being started again.
type transport struct {
	*raft.NetworkTransport
	stall *stallWatch
	ended <-chan struct{} // closed when the cluster stops
}

var _ raft.WithPreVote = (*transport)(nil)

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	for began := time.Now(); ; {
		if t.stall.stalled.Load() {
			return errStalled
		}
		err := t.NetworkTransport.AppendEntries(id, target, args, resp)
		if err == nil || heartbeat(args) || !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > keepTrying {
			return err
		}
		select {
		case <-time.After(tryEvery):
		case <-t.ended:
			return err
		}
	}
}

// heartbeat tells a heartbeat from entries; its failure is what silence is judged by, so it is told at once.
func heartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}
