// Package client talks to a Kontiki cluster over its HTTP API: the CLI, joining nodes and the tests use it.
//
// A Client knows several nodes and asks any of them: when a connection is refused or breaks, or a node answers that it
// cannot do it now, the next one is asked, until Patience is over. Every write carries an Idempotency-Key, so asking
// again is safe. A Client remembers the highest log index it has seen and makes every node catch up with it before it
// answers: it reads its own writes through any node.
//
// A Client may be used by many goroutines at once. Errors are *errs.Error with the code the server gave, or
// Unavailable when no node answered.
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"kontiki/errs"
)

// Config says how to reach a cluster.
type Config struct {
	// Addresses are the nodes to ask, as host:port (which means https) or as URL; at least one.
	Addresses []string
	// Token is the API token's secret; empty for what needs none.
	Token string
	// TLS says whom to trust: a config with the cluster's CA in RootCAs, or pki.PinnedTLS(fingerprint). Nil trusts
	// what the system trusts. It is not used when HTTPClient is given.
	TLS *tls.Config
	// HTTPClient sends the requests; nil for one of the Client's own.
	HTTPClient *http.Client
	// Patience is for how long a request that failed is tried again; 0 means 15 s.
	Patience time.Duration
	// Idle is how long a node may give no sign of life while it is asked; 0 means 20 s. For an upload it is longer, by
	// its size.
	Idle time.Duration
}

// Client asks the nodes of one cluster.
type Client struct {
	nodes    []*url.URL
	token    string
	http     *http.Client
	patience time.Duration
	idle     time.Duration
	first    atomic.Uint32 // which node is asked first: the last one that answered
	index    atomic.Uint64 // the highest log index seen
}

// New makes a Client; it connects to nobody yet. The error is of code Invalid.
func New(cfg Config) (*Client, error) {
	c := &Client{token: cfg.Token, http: cfg.HTTPClient, patience: cfg.Patience, idle: cfg.Idle}
	for _, a := range cfg.Addresses {
		u, err := parseAddress(a)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, u)
	}
	if len(c.nodes) == 0 {
		return nil, errs.New(errs.Invalid, "no address of a node is given").WithField("addresses").
			WithHint("name a node, such as https://127.0.0.1:7400")
	}
	if c.patience == 0 {
		c.patience = 15 * time.Second
	}
	if c.idle == 0 {
		c.idle = 20 * time.Second
	}
	if c.http == nil {
		c.http = newHTTPClient(cfg.TLS)
	}
	return c, nil
}

func parseAddress(address string) (*url.URL, error) {
	full := address
	if !strings.Contains(full, "://") {
		full = "https://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, errs.New(errs.Invalid, "%q is not the address of a node", address).WithField("addresses").
			WithHint("give host:port or a URL such as https://127.0.0.1:7400")
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

func newHTTPClient(tlsConfig *tls.Config) *http.Client {
	dialer := &net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: tlsConfig,
			TLSHandshakeTimeout: 3 * time.Second, ExpectContinueTimeout: time.Second,
			MaxIdleConns: 256, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
		},
		// The token goes to the nodes that were named and to nobody they point at.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Index is the highest log index the Client has seen; Observe makes it know one that was seen elsewhere.
func (c *Client) Index() uint64 { return c.index.Load() }

// Observe makes later reads reflect at least the log index.
func (c *Client) Observe(index uint64) {
	for {
		old := c.index.Load()
		if index <= old || c.index.CompareAndSwap(old, index) {
			return
		}
	}
}

type keyOfContext struct{}

// WithKey gives a context under which the next write carries this Idempotency-Key instead of a fresh one: use it to
// repeat a write of an earlier process. One key is for one write.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfContext{}, key)
}

func keyFor(ctx context.Context) string {
	if key, ok := ctx.Value(keyOfContext{}).(string); ok {
		return key
	}
	return "c-" + rand.Text()
}

func (c *Client) names() string {
	names := make([]string, len(c.nodes))
	for i, u := range c.nodes {
		names[i] = u.Host
	}
	return strings.Join(names, ", ")
}

func (c *Client) unreachable(last error) error {
	return errs.New(errs.Unavailable, "no node answers: %w", last).
		WithHint("%s", fmt.Sprintf("tried %s: check the address and that the nodes run", c.names()))
}
