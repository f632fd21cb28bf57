package node

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
)

// started is a node that runs in this process.
type started struct {
	*Node
	api, ingress string
	stop         func() error
}

func config(dir string) Config {
	return Config{DataDir: dir, ClusterAddr: freeAddr(), APIAddr: freeAddr(), IngressAddr: freeAddr(), Engine: EngineEmbedded}
}

// freeAddr gives an address that was free a moment ago: others are told it before the node listens.
func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func initNode(t *testing.T, id string) (Config, InitResult) {
	t.Helper()
	cfg := config(filepath.Join(t.TempDir(), id))
	r, err := Init(t.Context(), InitOptions{Config: cfg, NodeID: id})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, r
}

func start(t *testing.T, cfg Config) *started {
	t.Helper()
	n, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	s := &started{Node: n}
	_, s.api, s.ingress = n.Addrs()
	stopped := false
	s.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("node %s: %v", n.ID(), err)
		}
	})
	await(t, "node "+n.ID()+" to be ready", func() error { return n.Ready() })
	return s
}

func await(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	var err error
	for time.Now().Before(deadline) {
		if err = f(); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond) // between two looks at a condition
	}
	t.Fatalf("waited for %s: %v", what, err)
}

func dial(t *testing.T, token string, nodes ...*started) *client.Client {
	t.Helper()
	cfg := client.Config{Token: token}
	for _, n := range nodes {
		cfg.Addresses = append(cfg.Addresses, "http://"+n.api)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// join makes and starts a further node.
func join(t *testing.T, c *client.Client, seed *started, id string) *started {
	t.Helper()
	tok, err := c.CreateJoinToken(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(filepath.Join(t.TempDir(), id))
	if _, err := Join(t.Context(), JoinOptions{Config: cfg, NodeID: id, URL: "https://" + seed.api, Token: tok.Token}); err != nil {
		t.Fatal(err)
	}
	return start(t, cfg)
}

func site(t *testing.T, text string) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"index.html", "about.html", "a/b.css"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, name+" "+text); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

func deploy(t *testing.T, c *client.Client, project, text string) fsm.Deployment {
	t.Helper()
	d, err := c.Deploy(t.Context(), client.DeployRequest{Project: project, Archive: site(t, text), How: client.How{Create: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Follow(t.Context(), d.ID, 0, func(api.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if d, err = c.Deployment(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	return d
}

func browse(n *started, host, path string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+n.ingress+path, nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

func TestThreeNodesDeployASite(t *testing.T) {
	cfg, made := initNode(t, "n1")
	n1 := start(t, cfg)
	c := dial(t, made.Token, n1)
	n2, n3 := join(t, c, n1, "n2"), join(t, c, n1, "n3")
	nodes := []*started{n1, n2, n3}
	await(t, "three voters in contact", func() error {
		st, err := c.Status(t.Context())
		if err != nil {
			return err
		}
		for _, p := range st.Peers {
			if p.State != fsm.NodeReady || p.Role == api.RoleLearner {
				return fmt.Errorf("%+v", p)
			}
		}
		if len(st.Peers) != 3 {
			return fmt.Errorf("%d peers", len(st.Peers))
		}
		return nil
	})
	through := dial(t, made.Token, n2)
	for _, text := range []string{"first", "second"} {
		d := deploy(t, through, "hello", text)
		if d.Status != fsm.StatusActive || len(d.Instances) != 3 {
			t.Fatalf("%+v", d)
		}
		for _, n := range nodes {
			await(t, "the switch to be applied", func() error {
				body, err := browse(n, "hello.kontiki.localhost", "/about.html")
				if err == nil && body != "about.html "+text {
					err = fmt.Errorf("%q", body)
				}
				return err
			})
			await(t, "current to follow", func() error {
				link, err := os.Readlink(filepath.Join(n.cfg.DataDir, "static", "hello", "current"))
				if err == nil && link != "releases/"+d.ID {
					err = fmt.Errorf("it names %s", link)
				}
				return err
			})
		}
		logs, err := through.Logs(t.Context(), d.ID)
		if err != nil || len(logs.Lines) < 10 {
			t.Fatalf("%d lines, %v", len(logs.Lines), err)
		}
	}
	hashes, err := c.Hashes(t.Context())
	if err != nil || !hashes.Equal || len(hashes.Hashes) != 3 {
		t.Fatalf("%+v %v", hashes, err)
	}
}

func TestANodeThatWasRemovedStopsAndStaysOut(t *testing.T) {
	cfg, made := initNode(t, "n1")
	n1 := start(t, cfg)
	c := dial(t, made.Token, n1)
	n2, _ := join(t, c, n1, "n2"), join(t, c, n1, "n3")
	await(t, "n2 to vote", func() error {
		if n1.voters() != 3 {
			return errs.New(errs.Conflict, "%d voters", n1.voters())
		}
		return nil
	})
	gone := make(chan error, 1)
	if err := c.RemovePeer(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	await(t, "the voters to be two", func() error {
		if n1.voters() != 2 {
			return errs.New(errs.Conflict, "%d voters", n1.voters())
		}
		return nil
	})
	go func() { gone <- n2.stop() }()
	if err := <-gone; err != nil && errs.CodeOf(err) != errs.RemovedPeer {
		t.Fatal(err)
	}
	tok, err := c.CreateJoinToken(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Join(t.Context(), JoinOptions{Config: config(filepath.Join(t.TempDir(), "again")), NodeID: "n2", URL: "https://" + n1.api, Token: tok.Token})
	if errs.CodeOf(err) != errs.RemovedPeer {
		t.Fatalf("joining again under the old ID: %v", err)
	}
}

func TestAJoinTokenAdmitsOneNode(t *testing.T) {
	cfg, made := initNode(t, "n1")
	n1 := start(t, cfg)
	c := dial(t, made.Token, n1)
	tok, err := c.CreateJoinToken(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(id, token string) error {
		dir := filepath.Join(t.TempDir(), id)
		_, err := Join(t.Context(), JoinOptions{Config: config(dir), NodeID: id, URL: "https://" + n1.api, Token: token})
		if entries, _ := os.ReadDir(dir); err != nil && len(entries) > 0 {
			t.Errorf("a refused join leaves %v", entries)
		}
		return err
	}
	if err := ask("n1", tok.Token); errs.CodeOf(err) != errs.IdentityMismatch {
		t.Errorf("an ID that is taken: %v", err)
	}
	if err := ask("n2", tok.Token); err != nil {
		t.Fatal(err)
	}
	if err := ask("n3", tok.Token); errs.CodeOf(err) != errs.JoinToken {
		t.Errorf("a used token: %v", err)
	}
	if err := ask("n3", "kj1."+strings.Repeat("0", 64)+".x"); err == nil {
		t.Error("a token with another CA's fingerprint admits")
	}
}

func TestOpenRefusesADirectoryThatIsNotWhatItWas(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(cfg Config) error
		code  errs.Code
	}{
		"no identity":       {func(cfg Config) error { return os.Remove(cfg.path("identity.json")) }, errs.NotFound},
		"broken identity":   {func(cfg Config) error { return os.WriteFile(cfg.path("identity.json"), []byte("{"), 0o600) }, errs.StateCorrupt},
		"another's keys":    {func(cfg Config) error { return rename(cfg, "n9") }, errs.IdentityMismatch},
		"another's log":     {func(cfg Config) error { return os.WriteFile(cfg.path("raft", "owner"), []byte("c n9 x\n"), 0o600) }, errs.IdentityMismatch},
		"a log of nobody":   {func(cfg Config) error { return os.Remove(cfg.path("raft", "owner")) }, errs.IdentityMismatch},
		"an empty log":      {func(cfg Config) error { return os.RemoveAll(cfg.path("raft")) }, errs.StateCorrupt},
		"a log cut short":   {func(cfg Config) error { return os.Truncate(cfg.path("raft", "raft.db"), 8192) }, errs.StateCorrupt},
		"a log of no bytes": {func(cfg Config) error { return os.Truncate(cfg.path("raft", "raft.db"), 0) }, errs.StateCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := initNode(t, "n1")
			if err := c.spoil(cfg); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), cfg)
			if errs.CodeOf(err) != c.code || errs.From(err).Hint == "" {
				t.Fatalf("%v, code %s", err, errs.CodeOf(err))
			}
		})
	}
}

func rename(cfg Config, id string) error {
	identity, err := LoadIdentity(cfg.DataDir)
	if err != nil {
		return err
	}
	identity.NodeID = id
	return identity.save(cfg.DataDir)
}

func TestInitLeavesNothingBehindWhenItIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	for name, o := range map[string]InitOptions{
		"name":      {Config: config(dir), NodeID: "N 1"},
		"engine":    {Config: Config{DataDir: dir, Engine: "magic"}, NodeID: "n1"},
		"port":      {Config: Config{DataDir: dir, APIAddr: ":7000", IngressAddr: ":7000"}, NodeID: "n1"},
		"address":   {Config: Config{DataDir: dir, APIAddr: "7000"}, NodeID: "n1"},
		"domain":    {Config: config(dir), NodeID: "n1", BaseDomain: "not a domain"},
		"directory": {Config: Config{}, NodeID: "n1"},
	} {
		if _, err := Init(t.Context(), o); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			t.Errorf("%s leaves %v", name, entries)
		}
	}
	cfg, _ := initNode(t, "n1")
	if _, err := Init(t.Context(), InitOptions{Config: cfg, NodeID: "n2"}); errs.CodeOf(err) != errs.Exists {
		t.Errorf("a directory in use: %v", err)
	}
}

func TestATakenPortIsToldBeforeAnythingRuns(t *testing.T) {
	cfg, _ := initNode(t, "n1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg.APIAddr = l.Addr().String()
	if _, err := Open(t.Context(), cfg); errs.CodeOf(err) != errs.Invalid || errs.From(err).Field != "api_addr" {
		t.Fatal(err)
	}
	cfg.APIAddr = freeAddr() // what was opened before was closed again
	start(t, cfg)
}

func TestContentThatTheStateDoesNotKnowIsTold(t *testing.T) {
	cfg, made := initNode(t, "n1")
	n1 := start(t, cfg)
	c := dial(t, made.Token, n1)
	_, err := c.Deploy(t.Context(), client.DeployRequest{Project: "p", Archive: strings.NewReader("no archive"), How: client.How{Create: true}})
	if errs.CodeOf(err) != errs.InvalidArchive {
		t.Fatal(err)
	}
	held, err := n1.blobs.Put(t.Context(), strings.NewReader("an upload that was given up"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n1.tellStraysOnce(t.Context()); err != nil || n1.fsm.State().Blob(held.Digest) != nil {
		t.Fatalf("what was stored a moment ago is told: %v", err)
	}
	old := time.Now().Add(-time.Hour)
	hexed := strings.TrimPrefix(held.Digest, "sha256:")
	if err := os.Chtimes(filepath.Join(cfg.DataDir, "blobs", "sha256", hexed[:2], hexed), old, old); err != nil {
		t.Fatal(err)
	}
	if err := n1.tellStraysOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b := n1.fsm.State().Blob(held.Digest); b == nil || len(b.Nodes) != 1 {
		t.Fatalf("%+v", b)
	}
}

func TestJoinAttemptsWithoutATokenWriteNothing(t *testing.T) {
	cfg, made := initNode(t, "n1")
	n1 := start(t, cfg)
	c := dial(t, made.Token, n1)
	await(t, "the node to have introduced itself", func() error {
		if n1.fsm.State().Node("n1").Engine != EngineEmbedded {
			return errs.New(errs.Unavailable, "not yet")
		}
		return nil
	})
	before := n1.fsm.Applied()
	for range 3 {
		_, err := c.Join(t.Context(), api.JoinRequest{Token: "kj1." + made.Fingerprint + ".guess", CSR: []byte("no request"),
			Node: api.JoinNode{ID: "n2", ClusterAddr: "127.0.0.1:1", APIAddr: "127.0.0.1:2", IngressAddr: "127.0.0.1:3"}})
		if err == nil {
			t.Fatal("admitted")
		}
	}
	if after := n1.fsm.Applied(); after != before {
		t.Fatalf("the log grew from %d to %d", before, after)
	}
}
