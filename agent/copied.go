package agent

import (
	"context"
	"sync"

	"kontiki/fsm"
)

// copied remembers the releases that this process has made ready for deployments under way. The zero value is ready.
type copied struct {
	mu    sync.Mutex
	ready map[string]fsm.Instance // by deployment
}

// maxCopied bounds what is remembered: more deployments than that are not under way at a time.
const maxCopied = 1024

func (c *copied) get(deployment string) (fsm.Instance, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.ready[deployment]
	return i, ok
}

func (c *copied) put(deployment string, i fsm.Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready == nil || len(c.ready) >= maxCopied {
		c.ready = map[string]fsm.Instance{}
	}
	c.ready[deployment] = i
}

// ensureReady makes sure of the release before a later phase. What this process did itself a moment ago it does not look
// at again; but a step's second attempt does, and so does every process that was started since.
func (st *step) ensureReady(ctx context.Context) (fsm.Instance, []fsm.Held, error) {
	if st.d.Phase != fsm.PhaseCopyingFiles && st.key.Attempt == 1 {
		if i, ok := st.a.copied.get(st.d.ID); ok {
			return i, nil, nil
		}
	}
	i, held, err := st.a.ensureCopied(ctx, st.d)
	if err == nil {
		st.a.copied.put(st.d.ID, i)
	}
	return i, held, err
}
