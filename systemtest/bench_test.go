//go:build bench

package systemtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
)

// benchFor is how long a rate is measured.
const benchFor = 8 * time.Second

// rate has n workers call work until the time is over and gives calls per second; work gets its worker's number.
func rate(t *testing.T, n int, work func(worker, i int) error) float64 {
	t.Helper()
	var done atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for w := range n {
		wg.Go(func() {
			for i := 0; time.Since(began) < benchFor; i++ {
				if err := work(w, i); err != nil {
					t.Errorf("worker %d, call %d: %v", w, i, err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(began).Seconds()
}

func header(title string, columns ...any) {
	fmt.Printf("\n%s\n", title)
	fmt.Printf(strings.Repeat("%16s", len(columns))+"\n", columns...)
}

func row(columns ...any) { fmt.Printf(strings.Repeat("%16s", len(columns))+"\n", columns...) }

// bareGroup is three processes of hashicorp/raft at its defaults; they are the cluster package's own benchmark nodes.
type bareGroup struct {
	t     *testing.T
	procs map[string]*bareProc
}

type bareProc struct {
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Scanner
	addr string
}

type bareReply struct {
	Addr, Leader, Error string
}

func startBare(t *testing.T) *bareGroup {
	t.Helper()
	dir := runDir(t)
	path := filepath.Join(dir, "bare")
	if out, err := exec.Command("go", "test", "-c", "-tags", "bench", "-o", path, "kontiki/cluster").CombinedOutput(); err != nil {
		t.Fatalf("build the bare nodes: %v\n%s", err, out)
	}
	g := &bareGroup{t: t, procs: map[string]*bareProc{}}
	var servers []string
	for _, id := range []string{"b1", "b2", "b3"} {
		cmd := exec.Command(path)
		spec, err := json.Marshal(map[string]any{"ID": id, "Dir": filepath.Join(dir, id), "Bare": true})
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env, cmd.Stderr = append(os.Environ(), "KONTIKI_BENCH_NODE="+string(spec)), os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		p := &bareProc{cmd: cmd, in: in, out: bufio.NewScanner(out)}
		g.procs[id] = p
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
		})
		p.addr = g.reply(p).Addr
		servers = append(servers, id+"="+p.addr)
	}
	g.ask("b1", "servers "+strings.Join(servers, " "))
	return g
}

func (g *bareGroup) ask(id, order string) bareReply {
	g.t.Helper()
	if _, err := fmt.Fprintln(g.procs[id].in, order); err != nil {
		g.t.Fatal(err)
	}
	return g.reply(g.procs[id])
}

func (g *bareGroup) reply(p *bareProc) (r bareReply) {
	g.t.Helper()
	for p.out.Scan() {
		if text, ok := strings.CutPrefix(p.out.Text(), "="); ok {
			if err := json.Unmarshal([]byte(text), &r); err != nil || r.Error != "" {
				g.t.Fatal(err, r.Error)
			}
			return r
		}
	}
	g.t.Fatalf("a bare node has ended: %v", p.out.Err())
	return r
}

// leaderURL has the leader serve HTTP and gives its address.
func (g *bareGroup) leaderURL() string {
	g.t.Helper()
	var leader string
	await(g.t, "a bare leader", 30*time.Second, func() error {
		for id := range g.procs {
			if g.ask(id, "status").Leader == id {
				leader = id
				return nil
			}
		}
		return errs.New(errs.NoLeader, "none yet")
	})
	return "http://" + g.ask(leader, "http").Addr
}

func benchClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 128}}
}

// send makes a request and reads the answer, which must be a success.
func send(c *http.Client, method, url, token string, body []byte) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", res.Status, text)
	}
	return err
}

func TestBenchHTTPWrites(t *testing.T) {
	c, bare := startCluster(t, 3, options{}), startBare(t)
	url := bare.leaderURL()
	hc := benchClient()
	for w := range 32 {
		if err := send(hc, http.MethodPost, "http://"+c.nodes[0].api+"/api/projects", c.token, fmt.Appendf(nil, `{"name":"p%d"}`, w)); err != nil {
			t.Fatal(err)
		}
	}
	var best [2]float64
	for range 2 {
		best[0] = max(best[0], rate(t, 32, func(w, i int) error {
			n := c.nodes[w%len(c.nodes)]
			return send(hc, http.MethodPatch, fmt.Sprintf("http://%s/api/projects/p%d", n.api, w), c.token, fmt.Appendf(nil, `{"metadata":{"count":"%d"}}`, i))
		}))
		best[1] = max(best[1], rate(t, 32, func(w, i int) error {
			return send(hc, http.MethodPost, url, "", fmt.Appendf(nil, `{"metadata":{"count":"%d"}}`, i))
		}))
	}
	header("HTTP writes acknowledged, 32 clients: any node's API against net/http + raft.Apply on the leader; best of 2", "kontiki/s", "bare/s", "ratio", "target")
	row(fmt.Sprintf("%.0f", best[0]), fmt.Sprintf("%.0f", best[1]), fmt.Sprintf("%.2fx", best[0]/best[1]), "0.90x")
	if best[0] < 0.9*best[1] {
		t.Errorf("%.2fx of bare, the target is 0.90x", best[0]/best[1])
	}
}

func TestBenchHTTPReads(t *testing.T) {
	c := startCluster(t, 3, options{})
	d := benchDeploy(t, c.client(t), "site", "v1")
	follower := c.nodes[0]
	if c.leader(t) == follower {
		follower = c.nodes[1]
	}
	hc, url := benchClient(), "http://"+follower.api+"/api/deployments/"+d
	var body bytes.Buffer
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = body.ReadFrom(res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(err, res.Status)
	}
	_ = res.Body.Close() // it has been read
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bare := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body.Bytes()) // the client is gone when this fails
	})}
	go func() { _ = bare.Serve(l) }() // ends when it is closed
	defer bare.Close()
	var best [2]float64
	for range 2 {
		best[0] = max(best[0], rate(t, 32, func(int, int) error { return send(hc, http.MethodGet, url, c.token, nil) }))
		best[1] = max(best[1], rate(t, 32, func(int, int) error { return send(hc, http.MethodGet, "http://"+l.Addr().String(), "", nil) }))
	}
	header(fmt.Sprintf("HTTP reads of one deployment (%d bytes), 32 clients: a follower against a bare net/http handler; best of 2", body.Len()),
		"kontiki/s", "bare/s", "ratio", "target")
	row(fmt.Sprintf("%.0f", best[0]), fmt.Sprintf("%.0f", best[1]), fmt.Sprintf("%.2fx", best[0]/best[1]), "0.50x")
	if best[0] < 0.5*best[1] {
		t.Errorf("%.2fx of bare, the target is 0.50x", best[0]/best[1])
	}
}

// benchDeploy deploys a 20-file site and returns when it is active.
func benchDeploy(t *testing.T, c *client.Client, project, version string) string {
	id, err := deployToEnd(t, c, project, version)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func deployToEnd(t *testing.T, c *client.Client, project, version string) (string, error) {
	d, err := c.Deploy(t.Context(), client.DeployRequest{Project: project, Archive: bytes.NewReader(site(t, version)),
		ContentType: "application/x-tar", How: client.How{Create: true}})
	if err != nil {
		return "", err
	}
	status := ""
	err = c.Follow(t.Context(), d.ID, 0, func(e api.Event) error { status = string(e.Status); return nil })
	if err == nil && status != "active" {
		err = fmt.Errorf("deployment %s ended %s", d.ID, status)
	}
	return d.ID, err
}

func TestBenchDeployLatency(t *testing.T) {
	c := startCluster(t, 3, options{})
	cl := c.client(t)
	var took []time.Duration
	for i := range 150 {
		began := time.Now()
		benchDeploy(t, cl, "latency", fmt.Sprint("v", i))
		if i >= 10 {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	header("Upload → active, 20 files, idle cluster, three replicas, seen by a client that follows", "p50", "p99", "max", "target")
	row(p50.Round(time.Millisecond), p99.Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), "100ms / 300ms")
	if p50 > 100*time.Millisecond || p99 > 300*time.Millisecond {
		t.Error("the targets are p50 100ms, p99 300ms")
	}
}

func TestBenchDeployThroughput(t *testing.T) {
	c := startCluster(t, 3, options{})
	clients := make([]*client.Client, 64)
	for w := range clients {
		order := append(slices.Clone(c.nodes[w%3:]), c.nodes[:w%3]...)
		clients[w] = c.client(t, order...)
	}
	got := rate(t, len(clients), func(w, i int) error {
		_, err := deployToEnd(t, clients[w], fmt.Sprint("p", w), fmt.Sprint("v", w, ".", i))
		return err
	})
	header("Complete static deployments, 20 files, three replicas, 64 clients through all nodes", "deployments/s", "target")
	row(fmt.Sprintf("%.0f", got), "100")
	if got < 100 {
		t.Errorf("%.0f/s, the target is 100/s", got)
	}
}
