package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
)

// cluster is a running cluster and the way to talk to it.
type cluster struct {
	nodes []*node // n1, n2, …
	id    string
	token string
}

// options make a cluster other than usual. The zero value is the usual.
type options struct {
	env      func(n *node) []string // of every call of the binary for the node, from init or join on
	settings map[string]any         // changed from the defaults
	large    int                    // bytes of a large page that the world's sites have; 0 for none
}

// startCluster makes a cluster of n nodes and waits until all are ready.
func startCluster(t *testing.T, n int, o options) *cluster {
	t.Helper()
	c := &cluster{}
	dir := runDir(t)
	t.Cleanup(func() { c.end(t) })
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		m := c.addNode(t, filepath.Join(dir, name), name)
		if o.env != nil {
			m.env = o.env(m)
		}
	}
	first := c.nodes[0]
	var made struct{ Cluster, Token string }
	out := first.run(t, append([]string{"init", "--json", "--no-context"}, first.flags()...)...)
	if err := json.Unmarshal(out, &made); err != nil || made.Token == "" {
		t.Fatalf("kontiki init prints %s: %v", out, err)
	}
	c.id, c.token = made.Cluster, made.Token
	first.start(t)
	c.awaitReady(t, first)
	if len(o.settings) > 0 {
		if _, err := c.client(t).UpdateSettings(t.Context(), o.settings); err != nil {
			t.Fatalf("change settings: %v", err)
		}
	}
	for _, m := range c.nodes[1:] {
		c.join(t, m)
		m.start(t)
		c.awaitReady(t, m)
	}
	c.awaitMembers(t)
	return c
}

// addNode gives a node that has not joined yet its directory and ports.
func (c *cluster) addNode(t *testing.T, dir, name string) *node {
	t.Helper()
	m := &node{name: name, dir: dir, ports: freePorts(t)}
	if err := os.MkdirAll(filepath.Join(dir, "faults"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.nodes = append(c.nodes, m)
	return m
}

func (n *node) flags() []string {
	return []string{"--data", n.data(), "--node", n.name, "--engine", "embedded",
		"--cluster-addr", n.cluster, "--api-addr", n.api, "--ingress-addr", n.ingress}
}

// join admits the node; its server is not started.
func (c *cluster) join(t *testing.T, m *node) {
	t.Helper()
	token, err := c.client(t).CreateJoinToken(t.Context(), 0)
	if err != nil {
		t.Fatalf("make a join token: %v", err)
	}
	m.env = append(m.env, "KONTIKI_JOIN_TOKEN="+token.Token)
	m.run(t, append([]string{"join", "http://" + c.nodes[0].api}, m.flags()...)...)
}

func (c *cluster) end(t *testing.T) {
	for _, n := range c.nodes {
		n.end(t)
		if t.Failed() {
			t.Logf("last log lines of %s:\n%s", n.name, n.lastLines(60))
		}
	}
}

// client makes a client that asks the nodes in the given order; without any all of them, those first that run now.
func (c *cluster) client(t testing.TB, nodes ...*node) *client.Client {
	t.Helper()
	return c.clientWith(t, client.Config{}, nodes...)
}

func (c *cluster) clientWith(t testing.TB, cfg client.Config, nodes ...*node) *client.Client {
	t.Helper()
	if len(nodes) == 0 {
		nodes = slices.Clone(c.nodes)
		slices.SortStableFunc(nodes, func(a, b *node) int { return a.absence() - b.absence() })
	}
	cfg.Token = c.token
	for _, n := range nodes {
		cfg.Addresses = append(cfg.Addresses, "http://"+n.api)
	}
	made, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made
}

// absence orders nodes by how little there is to expect of them.
func (n *node) absence() int {
	switch {
	case !n.alive():
		return 1
	case n.paused:
		return 2
	}
	return 0
}

func (c *cluster) awaitReady(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		one := c.client(t, n)
		await(t, "node "+n.name+" is ready", 20*time.Second, func() error {
			if !n.alive() {
				t.Fatalf("node %s has ended: %s", n.name, n.cmd.ProcessState)
			}
			return one.Ready(t.Context())
		})
	}
}

// awaitMembers waits until every node votes and is in state ready.
func (c *cluster) awaitMembers(t testing.TB) {
	t.Helper()
	all := c.client(t)
	await(t, "every node votes and is ready", 30*time.Second, func() error {
		s, err := all.Status(t.Context())
		if err != nil {
			return err
		}
		return settledPeers(s, len(c.nodes))
	})
}

func settledPeers(s api.ClusterStatus, want int) error {
	if s.Leader == "" || len(s.Peers) != want {
		return fmt.Errorf("leader %q, %d peers", s.Leader, len(s.Peers))
	}
	for _, p := range s.Peers {
		if p.State != fsm.NodeReady || !p.Reachable || p.Role != api.RoleLeader && p.Role != api.RoleFollower {
			return fmt.Errorf("node %s is %s and %s, reachable: %v", p.ID, p.Role, p.State, p.Reachable)
		}
	}
	return nil
}

// leader gives the node that leads now, as those that run agree.
func (c *cluster) leader(t testing.TB) *node {
	t.Helper()
	var found *node
	await(t, "the nodes agree on a leader", 20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		found = nil
		for _, n := range c.nodes {
			if !n.alive() || n.paused {
				continue
			}
			s, err := c.client(t, n).Status(ctx)
			if err != nil {
				return err
			}
			if found != nil && found.name != s.Leader || s.Leader == "" {
				return fmt.Errorf("%s says %q leads", n.name, s.Leader)
			}
			found = c.node(s.Leader)
			if found == nil || !found.alive() || found.paused {
				return fmt.Errorf("%s says %q leads, which does not run", n.name, s.Leader)
			}
		}
		return nil
	})
	return found
}

func (c *cluster) node(name string) *node {
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// others gives the nodes without some.
func (c *cluster) others(without ...*node) []*node {
	var out []*node
	for _, n := range c.nodes {
		if !slices.Contains(without, n) {
			out = append(out, n)
		}
	}
	return out
}

// depose makes somebody else lead, by a crash and a return of a node that does.
func (c *cluster) depose(t testing.TB, n *node) {
	t.Helper()
	for c.leader(t) == n {
		n.kill(t)
		c.leader(t)
		n.start(t)
		c.awaitReady(t, n)
	}
}

// awaitEqual waits until all nodes have the same state at one log index.
func (c *cluster) awaitEqual(t testing.TB) {
	t.Helper()
	all := c.client(t)
	await(t, "equal states", 20*time.Second, func() error {
		h, err := all.Hashes(t.Context())
		if err != nil {
			return err
		}
		if len(h.Errors) == 0 && !h.Equal {
			t.Fatalf("the nodes' states differ at index %d: %v", h.Index, h.Hashes)
		}
		if !h.Equal || len(h.Hashes) != len(c.nodes) {
			return fmt.Errorf("hashes %v, errors %v", h.Hashes, h.Errors)
		}
		return nil
	})
}

// follow waits until a deployment has come to its end, as the stream of its events tells, and gives it.
func follow(t testing.TB, c *client.Client, id string, within time.Duration) fsm.Deployment {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := c.Follow(ctx, id, 0, func(api.Event) error { return nil }); err != nil {
		now, getErr := c.Deployment(t.Context(), id)
		t.Fatalf("deployment %s has not ended within %s: %v; it is %s in %s with steps %+v (%v)",
			id, within, err, now.Status, now.Phase, now.Steps, getErr)
	}
	d, err := c.Deployment(t.Context(), id)
	if err != nil {
		t.Fatal(errors.Join(errors.New("get the deployment that has ended"), err))
	}
	return d
}

// once sends one request to one node, with nobody to try again, and gives status, headers and the error of the answer.
func (c *cluster) once(n *node, method, path, key, body string) (answer, error) {
	req, err := http.NewRequest(method, "http://"+n.api+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		req.Header.Set("Content-Type", api.ContentTypeJSON)
	}
	if key != "" {
		req.Header.Set(api.HeaderKey, key)
	}
	res, err := noKeepAlive.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		return a, err
	}
	if a.status >= http.StatusBadRequest {
		var e api.ErrorBody
		if err := json.Unmarshal(a.body, &e); err != nil {
			return a, fmt.Errorf("answer %d is no error as all: %w", a.status, err)
		}
		a.code = e.Error.Code
	}
	return a, nil
}

// answer is what a request led to.
type answer struct {
	status int
	header http.Header
	body   []byte
	code   errs.Code // of an error
}

// host is under which ingress serves a project.
func host(project string) string { return project + "." + fsm.DefaultSettings().BaseDomain }

// noKeepAlive asks an ingress once, on a connection of its own.
var noKeepAlive = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
