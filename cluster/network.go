package cluster

import (
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/raft"
)

// Network is how a node reaches its peers: Raft's own connections and HTTP between nodes, both on one address.
// Port is the real one, MemoryNode the simulated.
type Network interface {
	// Addr gives the address peers dial, as host:port.
	Addr() string
	// Raft gives the streams Raft speaks on. Closing it closes every Raft connection, not the HTTP ones.
	Raft() raft.StreamLayer
	// HTTP gives the listener of the node-to-node HTTP, for the caller to serve.
	HTTP() net.Listener
	// Client reaches peers at the addresses PeerURL makes, and refuses any other node than the one that was named.
	Client() *http.Client
	// Close ends everything.
	Close() error
}

var (
	_ Network = (*Port)(nil)
	_ Network = (*MemoryNode)(nil)
)

// PeerURL gives the address of a path on a peer for Network.Client. An empty nodeID means whichever node is there.
func PeerURL(nodeID, addr, path string) string {
	if nodeID == "" {
		return "https://" + addr + path
	}
	return "https://" + nodeID + "@" + addr + path
}

// Raft dials by address alone, but a connection must reach the node that was meant, not whoever lives at its address
// today. So the address Raft stores is <node ID>@<host:port>.
func serverAddress(id, addr string) raft.ServerAddress { return raft.ServerAddress(id + "@" + addr) }

func splitAddress(a raft.ServerAddress) (id, addr string) {
	id, addr, _ = strings.Cut(string(a), "@")
	return id, addr
}

// streamAddr is a net.Addr in that form.
type streamAddr string

func (streamAddr) Network() string  { return "kontiki" }
func (a streamAddr) String() string { return string(a) }
