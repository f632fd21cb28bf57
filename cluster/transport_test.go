package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// refusingPeer is a stream layer of a peer that refuses connections for a while and then breaks them off.
type refusingPeer struct {
	net.Listener
	refusals int32
	dialled  atomic.Int32
}

func (r *refusingPeer) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	if r.dialled.Add(1) <= r.refusals {
		return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	}
	return nil, io.ErrUnexpectedEOF
}

// Regression: a follower that was started again waited for the end of Raft's back-off, up to ten seconds, before it was
// sent anything.
func TestEntriesAreOfferedUntilTheFollowerIsBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := &refusingPeer{Listener: l, refusals: 3}
	ended := make(chan struct{})
	tr := &transport{stall: &stallWatch{}, ended: ended, NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: peer, MaxPool: 1, MaxRPCsInFlight: 1, Timeout: time.Second})}
	defer tr.Close()
	entries := &raft.AppendEntriesRequest{PrevLogEntry: 1, PrevLogTerm: 1}
	if err := tr.AppendEntries("n2", "n2@x", entries, &raft.AppendEntriesResponse{}); !errors.Is(err, io.ErrUnexpectedEOF) || peer.dialled.Load() != 4 {
		t.Fatalf("%v after %d tries", err, peer.dialled.Load())
	}
	peer.dialled.Store(0)
	if err := tr.AppendEntries("n2", "n2@x", &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); !errors.Is(err, syscall.ECONNREFUSED) || peer.dialled.Load() != 1 {
		t.Fatalf("a heartbeat: %v after %d tries", err, peer.dialled.Load())
	}
	peer.dialled.Store(0)
	close(ended)
	if err := tr.AppendEntries("n2", "n2@x", entries, &raft.AppendEntriesResponse{}); !errors.Is(err, syscall.ECONNREFUSED) || peer.dialled.Load() != 1 {
		t.Fatalf("while stopping: %v after %d tries", err, peer.dialled.Load())
	}
}
