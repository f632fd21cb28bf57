package systemtest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/errs"
	"kontiki/fsm"
)

// A hundred clients send the same upload under the same key through all nodes, while the leader dies.
func TestTheSameRequestAHundredTimesIsOneDeployment(t *testing.T) {
	const key = "the-only-one"
	c := startCluster(t, 3, options{})
	archive := site(t, "once")
	leader := c.leader(t)
	made := make(chan fsm.Deployment, 100)
	var clients sync.WaitGroup
	for i := range 100 {
		order := append(append([]*node{}, c.nodes[i%3:]...), c.nodes[:i%3]...)
		one := c.clientWith(t, client.Config{Patience: 60 * time.Second}, order...)
		clients.Go(func() {
			d, err := one.Deploy(client.WithKey(t.Context(), key),
				client.DeployRequest{Project: "once", Archive: bytes.NewReader(archive), How: client.How{Create: true}})
			if err != nil {
				t.Errorf("one of the hundred: %v", err)
			}
			made <- d
		})
	}
	first := <-made
	leader.kill(t)
	clients.Wait()
	close(made)
	all := c.client(t)
	for d := range made {
		all.Observe(d.ModifyIndex)
		if d.ID != first.ID {
			t.Errorf("one of the hundred made deployment %s, another one %s", first.ID, d.ID)
		}
	}
	d := follow(t, all, first.ID, 60*time.Second)
	if d.Status != fsm.StatusActive || d.Number != 1 {
		t.Errorf("deployment %d is %s: %+v", d.Number, d.Status, d.Failure)
	}
	leader.start(t)
	c.awaitReady(t, leader)
	c.awaitSettled(t, map[string]string{"once": first.ID})
	if ds, err := deployments(t, c.client(t)); err != nil || len(ds) != 1 {
		t.Errorf("there are %d deployments, %v", len(ds), err)
	}

	_, err := c.client(t).Deploy(client.WithKey(t.Context(), key),
		client.DeployRequest{Project: "once", Archive: bytes.NewReader(site(t, "another"))})
	if errs.CodeOf(err) != errs.IdempotencyReuse {
		t.Errorf("another upload under the same key: %v", err)
	}
}

func TestStatesAreEqualUnderLoad(t *testing.T) {
	c := startCluster(t, 3, options{})
	ws := c.write(t, 4, c.nodes...)
	stop := make(chan struct{})
	var deploying sync.WaitGroup
	one := c.client(t)
	deploying.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			d, err := one.Deploy(t.Context(), client.DeployRequest{Project: fmt.Sprintf("site-%d", i%5),
				Archive: bytes.NewReader(site(t, fmt.Sprint(i))), How: client.How{Create: true}})
			if err == nil {
				err = one.Follow(t.Context(), d.ID, 0, func(api.Event) error { return nil })
			}
			if err != nil {
				t.Errorf("deploy: %v", err)
			}
		}
	})
	all, indexes := c.client(t), map[uint64]bool{}
	for range 50 {
		h, err := all.Hashes(t.Context())
		if err != nil || !h.Equal || len(h.Hashes) != 3 {
			t.Errorf("at index %d: %v, %v, %v", h.Index, h.Hashes, h.Errors, err)
		}
		indexes[h.Index] = true
		c.awaitProgress(t, 3)
	}
	close(stop)
	deploying.Wait()
	ws.stop()
	accepted, unknown, refused, _ := ws.sum()
	t.Logf("equal at %d indexes, over %d writes", len(indexes), accepted)
	if unknown+refused > 0 {
		t.Errorf("%d writes of unknown outcome, %d refused", unknown, refused)
	}
	ws.check(t, c)
}

// slowReader fetches a large page and reads on only when it is told to.
type slowReader struct {
	body io.ReadCloser
	got  bytes.Buffer
}

const largeSize = 24 << 20 // more than the kernel keeps for a connection

func startReading(t *testing.T, n *node, host string) *slowReader {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+n.ingress+"/large.txt", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("node %s answers %s", n.name, res.Status)
	}
	return &slowReader{body: res.Body}
}

func (r *slowReader) read(t *testing.T, most int64) {
	t.Helper()
	if _, err := io.CopyN(&r.got, r.body, most); err != nil && err != io.EOF {
		t.Fatalf("a slow reader was cut off after %d bytes: %v", r.got.Len(), err)
	}
}

// A switch of versions, also one while the leader dies, drops no request: neither those of many clients that keep their
// connections, nor one that has been reading since before.
func TestASwitchDropsNoRequest(t *testing.T) {
	w := newWorld(t, options{settings: hasty, large: largeSize})
	more := probe(t, w.cluster, mainProject, 4, 20*time.Millisecond) // 200 a second beside the 130 of the world's own
	began, requests := time.Now(), 0
	for round := range 6 {
		old, next := w.version, w.next()
		readers := make([]*slowReader, 0, len(w.nodes))
		leader := w.leader(t)
		for _, n := range w.others(leader) {
			r := startReading(t, n, host(mainProject))
			r.read(t, largeSize/4)
			readers = append(readers, r)
		}
		w.users.allow(old, next)
		more.allow(old, next)
		p := w.deploy(t, w.others(leader)[0], order{project: mainProject, version: next})
		if round%2 == 1 {
			leader.kill(t)
		}
		w.expect(t, p.end(t), fsm.StatusActive)
		if round%2 == 1 {
			leader.start(t)
		}
		w.version = next
		w.check(t)
		more.allow(next)
		for _, r := range readers {
			r.read(t, largeSize)
			if want := largePage(old, largeSize); !bytes.Equal(r.got.Bytes(), want) {
				t.Errorf("a slow reader of %q got %d bytes, not its %d", old, r.got.Len(), len(want))
			}
		}
		requests += more.check(t)
	}
	t.Logf("%d requests in %s, none failed", requests, time.Since(began).Round(time.Millisecond))
}
