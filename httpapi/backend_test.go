package httpapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/httpapi"
)

const adminSecret = "s3cret-of-the-first-admin"

// group is a log that is kept in memory and the replicas that apply it: each Propose is one entry.
type group struct {
	mu       sync.Mutex
	entries  [][]byte
	replicas []*replica
	down     atomic.Pointer[errs.Error] // what Propose and ReadIndex answer while it is not nil
}

// replica is one node: everything in Deps.
type replica struct {
	*fsm.FSM
	id      string
	group   *group
	applied int  // entries; guarded by group.mu
	held    bool // applies nothing; guarded by group.mu
	waits   chan uint64
	leader  string
	notUp   atomic.Pointer[errs.Error]
	logs    syncBuffer
	blobs   map[string][]byte
	blobsMu sync.Mutex
	url     string
	http    *httptest.Server
}

// newGroup starts a cluster of n nodes with one admin token.
func newGroup(t testing.TB, n int, change func(*httpapi.Deps)) *group {
	t.Helper()
	g := &group{}
	for i := range n {
		r := &replica{FSM: fsm.New(), id: "n" + string(rune('1'+i)), group: g, waits: make(chan uint64, 1000), leader: "n1", blobs: map[string][]byte{}}
		g.replicas = append(g.replicas, r)
		d := httpapi.Deps{Replica: r, Uploads: r, Members: r, Logs: r, Node: r, Place: place, JoinToken: func(s string) string { return "kj1.fp." + s },
			Logger: slog.New(slog.NewTextHandler(&r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))}
		if change != nil {
			change(&d)
		}
		r.http = httptest.NewServer(httpapi.New(d))
		r.url = r.http.URL
		t.Cleanup(r.http.Close)
	}
	hash := sha256.Sum256([]byte(adminSecret))
	g.must(t, fsm.ClusterInit{ID: "c1", Settings: fsm.DefaultSettings(), Node: fsm.Node{ID: "n1", ClusterAddr: "10.0.0.1:7401"},
		Token: fsm.Token{ID: fsm.NewID(), Name: "admin", Role: "admin", Hash: hash[:]}})
	g.must(t, fsm.JoinTokenCreate{ID: hex.EncodeToString(hash[:]), ExpiresAt: fsm.Now() + 3_600_000})
	g.must(t, fsm.NodeJoin{TokenID: hex.EncodeToString(hash[:]), Node: fsm.Node{ID: "n2", ClusterAddr: "10.0.0.2:7401", Incarnation: "i"}})
	return g
}

func place(s *fsm.State, _ string, replicas fsm.Replicas) []string {
	var out []string
	for n := range s.Nodes() {
		if replicas == fsm.ReplicasAll || len(out) < int(replicas) {
			out = append(out, n.ID)
		}
	}
	return out
}

func (g *group) must(t testing.TB, body fsm.Body) fsm.Result {
	t.Helper()
	r := g.apply(fsm.NewCommand(body, "test"))
	if r.Err != nil {
		t.Fatalf("%s: %v", body.Kind(), r.Err)
	}
	return r
}

// apply adds an entry to the log and applies it on every replica that is not held.
func (g *group) apply(cmd fsm.Command) fsm.Result {
	g.mu.Lock()
	defer g.mu.Unlock()
	entry := fsm.EncodeEntry([][]byte{cmd.Encode()})
	g.entries = append(g.entries, entry)
	// The first replica leads and is never held.
	result := g.replicas[0].Apply(uint64(len(g.entries)), 1, entry)[0]
	g.replicas[0].applied = len(g.entries)
	for _, r := range g.replicas[1:] {
		r.catchUp()
	}
	return result
}

func (g *group) length() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.entries)
}

func (r *replica) catchUp() {
	for ; !r.held && r.applied < len(r.group.entries); r.applied++ {
		r.Apply(uint64(r.applied+1), 1, r.group.entries[r.applied])
	}
}

func (r *replica) hold(held bool) {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	r.held = held
	r.catchUp()
}

// Wait says on waits what it waits for.
func (r *replica) Wait(ctx context.Context, index uint64) error {
	if r.Applied() < index {
		r.waits <- index
	}
	return r.FSM.Wait(ctx, index)
}

func (r *replica) Propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	if down := r.group.down.Load(); down != nil {
		return fsm.Result{}, down
	}
	return r.group.apply(cmd), nil
}

func (r *replica) ReadIndex(context.Context) (uint64, error) {
	if down := r.group.down.Load(); down != nil {
		return 0, down
	}
	return r.group.replicas[0].Applied(), nil
}

func (r *replica) StoreUpload(_ context.Context, body io.Reader, limit int64) (httpapi.Stored, error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return httpapi.Stored{}, errs.New(errs.Unavailable, "content broke off: %w", errors.New(err.Error()))
	}
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.blobsMu.Lock()
	r.blobs[digest] = b
	r.blobsMu.Unlock()
	return httpapi.Stored{Digest: digest, Size: int64(len(b)), Nodes: []string{r.id}}, nil
}

func (r *replica) CheckHead(head []byte, _ string) error {
	if len(head) > httpapi.HeadSize || !bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		return errs.New(errs.InvalidArchive, "the upload is not an archive Kontiki knows")
	}
	return nil
}

func (r *replica) DetectFormat(_ context.Context, digest, _ string) (string, error) {
	r.blobsMu.Lock()
	defer r.blobsMu.Unlock()
	if !bytes.HasPrefix(r.blobs[digest], []byte{0x1f, 0x8b}) {
		return "", errs.New(errs.InvalidArchive, "the upload is not an archive Kontiki knows")
	}
	return "tar.gz", nil
}

func (r *replica) Admit(_ context.Context, in api.JoinRequest) (api.JoinAnswer, error) {
	if in.Token != "kj1.fp.good" {
		return api.JoinAnswer{}, errs.New(errs.JoinToken, "the join token was used by node %q", "n7")
	}
	return api.JoinAnswer{ClusterID: "c1", Certificate: []byte("PEM"), Nodes: []fsm.Node{{ID: in.Node.ID}}}, nil
}

func (r *replica) CheckRemoval(id string) error {
	if id == "n1" {
		return errs.New(errs.QuorumLoss, "without %q there would be no majority", id)
	}
	return nil
}

func (r *replica) Status(context.Context) (api.ClusterStatus, error) {
	return api.ClusterStatus{ID: "c1", Node: r.id, Leader: "n1", Term: 1, Applied: r.Applied(), Peers: []api.Peer{{Node: fsm.Node{ID: "n1"}, Role: api.RoleLeader}}}, nil
}

func (r *replica) Hashes(context.Context) (api.Hashes, error) {
	return api.Hashes{Index: 3, Equal: true, Hashes: map[string]string{"n1": "ab"}}, nil
}

func (r *replica) Logs(_ context.Context, deployment string) ([]api.LogLine, error) {
	return []api.LogLine{{Node: "n1", Phase: fsm.PhaseBuilding, Attempt: 1, Line: "unpacked " + deployment}}, nil
}

func (r *replica) ID() string      { return r.id }
func (r *replica) Version() string { return "v-test" }
func (r *replica) Ready() error {
	if e := r.notUp.Load(); e != nil {
		return e
	}
	return nil
}
func (r *replica) Leader() (string, time.Duration) { return r.leader, 7 * time.Millisecond }

// client gives the real client, asking the nodes given in turn.
func (g *group) client(t testing.TB, secret string, nodes ...int) *client.Client {
	t.Helper()
	var urls []string
	for _, n := range nodes {
		urls = append(urls, g.replicas[n].url)
	}
	c, err := client.New(client.Config{Addresses: urls, Token: secret, Patience: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// syncBuffer is a buffer for the log.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// archive is content that passes for an archive here.
func archive(text string) []byte { return append([]byte{0x1f, 0x8b}, text...) }

// deploy queues a deployment through the real client.
func deploy(t testing.TB, c *client.Client, project, text string) fsm.Deployment {
	t.Helper()
	d, err := c.Deploy(t.Context(), client.DeployRequest{Project: project, Archive: bytes.NewReader(archive(text)),
		ContentType: "application/gzip", How: client.How{Create: true, Label: text}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var working = []fsm.Phase{fsm.PhasePullingSource, fsm.PhaseBuilding, fsm.PhaseCopyingFiles, fsm.PhaseCreatingSymlinks,
	fsm.PhaseUpdatingRoutes, fsm.PhaseHealthCheck}

func (g *group) start(t testing.TB, id string) {
	t.Helper()
	g.must(t, fsm.DeploymentStart{ID: id, Builder: "n1", Targets: []string{"n1"}})
}

func (g *group) report(t testing.TB, id string, p fsm.Phase) {
	t.Helper()
	g.must(t, fsm.StepReport{StepKey: fsm.StepKey{Deployment: id, Phase: p, Attempt: 1, Node: "n1"}, Message: "did " + string(p)})
}

// bring takes a queued deployment to active.
func (g *group) bring(t testing.TB, id string) {
	t.Helper()
	g.start(t, id)
	for _, p := range working {
		g.report(t, id, p)
	}
}

// ask sends a raw request to the first node, with the admin's token unless the headers say otherwise.
func (g *group) ask(t testing.TB, method, path, body string, headers ...string) *http.Response {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = bytes.NewReader([]byte(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), method, g.replicas[0].url+path, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminSecret)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Del(headers[i]); headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func read(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
