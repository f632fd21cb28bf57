package cluster

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// peerClient sends HTTP requests to peers. Each peer has connections of its own, keyed by ID and address: a request
// for one node can never go out on a connection to another.
type peerClient struct {
	dial func(ctx context.Context, id, addr string) (net.Conn, error)

	mu    sync.Mutex
	peers map[[2]string]*http.Transport
}

func newPeerClient(dial func(ctx context.Context, id, addr string) (net.Conn, error)) *peerClient {
	return &peerClient{dial: dial, peers: map[[2]string]*http.Transport{}}
}

// RoundTrip implements http.RoundTripper for addresses made by PeerURL.
func (p *peerClient) RoundTrip(r *http.Request) (*http.Response, error) {
	id := r.URL.User.Username()
	if id == "" {
		return p.transport("", r.URL.Host).RoundTrip(r)
	}
	clean := r.Clone(r.Context())
	clean.URL.User = nil
	// http.Client makes credentials of a URL's user; the ID is none, and the other end reads this header.
	if user, _, ok := r.BasicAuth(); ok && user == id {
		clean.Header.Del("Authorization")
	}
	return p.transport(id, r.URL.Host).RoundTrip(clean)
}

func (p *peerClient) transport(id, addr string) *http.Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := [2]string{id, addr}
	t := p.peers[key]
	if t == nil {
		t = &http.Transport{
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx, id, addr) },
			// Users' requests that another node's instance serves come this way too.
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     time.Minute,
			// The peer's clients may ask for bodies as they are stored; compressing between nodes is not ours to decide.
			DisableCompression: true,
		}
		p.peers[key] = t
	}
	return t
}

// CloseIdleConnections lets http.Client close what is not in use.
func (p *peerClient) CloseIdleConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.peers {
		t.CloseIdleConnections()
	}
}
