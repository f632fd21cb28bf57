package cmd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	probeWorkers  = 8
	probePause    = 25 * time.Millisecond // between two requests of one worker: 320 requests/s in all
	probePatience = 5 * time.Second
)

// probe asks the nodes for pages all the time, as a load balancer with retries would: node after node in turn; a
// connection that is refused or breaks is tried once more on the next node. A request fails when no node answers it
// properly: status 200 and exactly the body of the edition whose release the answer names.
//
// Its counters may be read at any time.
type probe struct {
	host     string
	nodes    []string // ingress addresses
	editions [2]edition
	http     *http.Client
	made     atomic.Int64
	retried  atomic.Int64
	seen     [2]atomic.Int64 // answers of each edition

	mu       sync.Mutex
	failures []string
	release  map[string]int // release to the edition it was seen with

	run struct {
		began  time.Time
		cancel context.CancelFunc
		wg     sync.WaitGroup
	}
}

func newProbe(host string, nodes []*process, editions [2]edition) *probe {
	p := &probe{host: host, editions: editions, release: map[string]int{},
		http: &http.Client{Timeout: probePatience, Transport: &http.Transport{MaxIdleConnsPerHost: probeWorkers}}}
	for _, n := range nodes {
		p.nodes = append(p.nodes, n.ingress)
	}
	return p
}

// start lets the workers go until stop.
func (p *probe) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.run.began, p.run.cancel = time.Now(), cancel
	paths := p.editions[0].paths()
	for w := range probeWorkers {
		p.run.wg.Go(func() {
			tick := time.NewTicker(probePause)
			defer tick.Stop()
			for i := w; ; i += probeWorkers {
				select {
				case <-tick.C:
					p.request(paths[i%len(paths)], i)
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

// stop ends the probe and waits for the requests that are under way.
func (p *probe) stop() {
	if p.run.cancel == nil {
		return
	}
	p.run.cancel()
	p.run.wg.Wait()
	p.http.CloseIdleConnections()
}

// duration is for how long it has been asking.
func (p *probe) duration() time.Duration { return time.Since(p.run.began) }

func (p *probe) request(path string, turn int) {
	p.made.Add(1)
	first := p.nodes[turn%len(p.nodes)]
	a, err := p.ask(first, path)
	if err != nil {
		p.retried.Add(1)
		second := p.nodes[(turn+1)%len(p.nodes)]
		retried, again := p.ask(second, path)
		if again != nil {
			p.fail("%s: %v, then on the next node: %v", path, err, again)
			return
		}
		a = retried
	}
	if problem := p.check(path, a); problem != "" {
		p.fail("%s from %s: %s", path, a.node, problem)
	}
}

// page is what a node answered.
type page struct {
	node    string // address
	by      string // name of the node whose copy it is
	release string
	status  int
	body    []byte
}

// ask gets a page from one node; the error means that the connection was refused or broke.
func (p *probe) ask(node, path string) (page, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+node+path, nil)
	if err != nil {
		return page{}, err
	}
	req.Host = p.host
	res, err := p.http.Do(req)
	if err != nil {
		return page{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return page{}, err
	}
	return page{node: node, by: res.Header.Get("Kontiki-Node"), release: res.Header.Get("Kontiki-Release"), status: res.StatusCode, body: body}, nil
}

// check gives what is wrong with an answer, or "".
func (p *probe) check(path string, a page) string {
	if a.status != http.StatusOK {
		return fmt.Sprintf("status %d: %.200s", a.status, a.body)
	}
	for i, e := range p.editions {
		if !bytes.Equal(a.body, e.pages[path]) {
			continue
		}
		p.seen[i].Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if known, ok := p.release[a.release]; ok && known != i {
			return fmt.Sprintf("release %s gave both editions", a.release)
		}
		p.release[a.release] = i
		return ""
	}
	return fmt.Sprintf("the body of release %q is of no edition", a.release)
}

func (p *probe) fail(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = append(p.failures, fmt.Sprintf(format, args...))
}

// failed gives the failures so far.
func (p *probe) failed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.failures...)
}
