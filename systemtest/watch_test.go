package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/fsm"
)

// watcher asks every node all the time which deployments of a project are active. By every node's own replica, at
// whatever log index it is, it must be exactly one.
type watcher struct {
	quit chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	looks int
	wrong []string
}

// watch starts a watcher of a project that has had an active deployment since the log index.
func watch(t *testing.T, c *cluster, project string, since uint64) *watcher {
	w := &watcher{quit: make(chan struct{})}
	for _, n := range c.nodes {
		w.wg.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-w.quit:
					return
				case <-tick.C:
					w.look(c, n, project, since)
				}
			}
		})
	}
	t.Cleanup(func() { close(w.quit); w.wg.Wait() })
	return w
}

func (w *watcher) look(c *cluster, n *node, project string, since uint64) {
	a, err := c.once(n, http.MethodGet, "/api/deployments?status=active&project="+project, "", "")
	if err != nil || a.status == http.StatusServiceUnavailable {
		return // it does not run, or is not ready
	}
	var page api.Page[fsm.Deployment]
	index, indexErr := strconv.ParseUint(a.header.Get(api.HeaderIndex), 10, 64)
	wrong := ""
	switch {
	case indexErr == nil && index < since:
		return // it repeats its log and is not there yet
	case a.status != http.StatusOK || indexErr != nil || json.Unmarshal(a.body, &page) != nil:
		wrong = fmt.Sprintf("node %s answers %d %.200s", n.name, a.status, a.body)
	case len(page.Items) != 1:
		wrong = fmt.Sprintf("node %s has %d active deployments of %s at index %d", n.name, len(page.Items), project, index)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if wrong != "" {
		w.wrong = append(w.wrong, wrong)
	}
}

// check fails the test for everything that was wrong since the last check, in which there has been a look at least.
func (w *watcher) check(t testing.TB) {
	t.Helper()
	await(t, "somebody looks at what is active", 20*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.looks == 0 {
			return errors.New("nobody has")
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.wrong {
		t.Error(s)
	}
	w.looks, w.wrong = 0, nil
}
