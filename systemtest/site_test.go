package systemtest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// site makes the archive of a static site of 20 files whose pages say which version they are.
func site(t testing.TB, version string) []byte { t.Helper(); return siteWith(t, version, 0) }

// siteWith is site with a large page of so many bytes, 0 for none.
func siteWith(t testing.TB, version string, large int) []byte {
	t.Helper()
	pages := map[string][]byte{"index.html": []byte(version)}
	for i := range 19 {
		pages[fmt.Sprintf("pages/page-%d.html", i)] = fmt.Appendf(nil, "page %d of %s\n", i, version)
	}
	if large > 0 {
		pages["large.txt"] = largePage(version, large)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(pages[name])), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(pages[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func largePage(version string, size int) []byte {
	line := []byte(version + "\n")
	return bytes.Repeat(line, size/len(line))
}

// fetch asks one node's ingress for the start page of a host.
func fetch(c *http.Client, n *node, host string) (status int, body string, err error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+n.ingress+"/", nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// prober asks all nodes' ingresses in turn, all the time, as a load balancer does: when a connection is refused or
// breaks, the next node is asked, once. Every other answer than a page of an allowed version is a failure.
type prober struct {
	host  string
	nodes []*node
	tries int // nodes asked for one request
	quit  chan struct{}
	wg    sync.WaitGroup

	mu       sync.Mutex
	allowed  map[string]bool
	requests int
	failures []string
}

// probe starts a prober of a project with so many workers that pause for so long between requests.
func probe(t testing.TB, c *cluster, project string, workers int, pause time.Duration) *prober {
	p := &prober{host: host(project), nodes: c.nodes, tries: 2, quit: make(chan struct{}), allowed: map[string]bool{}}
	for i := range workers {
		p.wg.Go(func() { p.work(i, pause) })
	}
	t.Cleanup(p.stop)
	return p
}

func (p *prober) stop() {
	select {
	case <-p.quit:
	default:
		close(p.quit)
	}
	p.wg.Wait()
}

func (p *prober) work(turn int, pause time.Duration) {
	transport := &http.Transport{MaxIdleConnsPerHost: 2}
	defer transport.CloseIdleConnections()
	c := &http.Client{Timeout: 5 * time.Second, Transport: transport}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
		turn++
		p.ask(c, turn)
	}
}

func (p *prober) ask(c *http.Client, turn int) {
	p.mu.Lock()
	before, most := p.allowed, p.tries
	p.mu.Unlock()
	if len(before) == 0 {
		return
	}
	began := time.Now()
	var tries []string
	for try := range most {
		n := p.nodes[(turn+try)%len(p.nodes)]
		status, body, err := fetch(c, n, p.host)
		if err == nil && status == http.StatusOK && p.allows(before, body) {
			p.count("")
			return
		}
		tries = append(tries, fmt.Sprintf("%s: status %d, body %.200q, %v", n.name, status, body, err))
		if err == nil {
			break
		}
	}
	p.count(fmt.Sprintf("%s after %s: %s", began.Format("15:04:05.000"), time.Since(began).Round(time.Millisecond), strings.Join(tries, "; ")))
}

func (p *prober) allows(before map[string]bool, body string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return before[body] || p.allowed[body]
}

func (p *prober) count(failure string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	if failure != "" {
		p.failures = append(p.failures, failure)
	}
}

// allow says which versions may be answered from now on; the prober begins with the first call.
func (p *prober) allow(versions ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allowed = map[string]bool{}
	for _, v := range versions {
		p.allowed[v] = true
	}
}

// patient makes the load balancer ask every node before it gives up.
func (p *prober) patient() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries = len(p.nodes)
}

// check fails the test for every request that has failed since the last check, and gives how many there were, which is
// at least one.
func (p *prober) check(t testing.TB) (requests int) {
	t.Helper()
	await(t, "somebody asks for the site", 20*time.Second, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.requests == 0 {
			return errors.New("nobody has")
		}
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, f := range p.failures {
		if i == 10 {
			t.Errorf("and %d more", len(p.failures)-i)
			break
		}
		t.Errorf("a request failed: %s", f)
	}
	requests = p.requests
	p.requests, p.failures = 0, nil
	return requests
}
