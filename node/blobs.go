package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"kontiki/agent"
	"kontiki/artifact"
	"kontiki/cluster"
	"kontiki/errs"
	"kontiki/fsm"
)

var _ agent.Blobs = (*blobs)(nil)

// blobs is the node's own store and the way to the other nodes'.
type blobs struct {
	self   string
	store  *artifact.Store
	state  func() *fsm.State
	voters func() int
	client *http.Client
	logger *slog.Logger
}

const (
	pushTime = 2 * time.Minute  // how long another node may take to take a blob over
	dropAge  = 15 * time.Second // longer than an upload waits for its deployment to be committed
)

// Ensure implements agent.Blobs: those that are known to hold the blob are asked first, then the others.
func (b *blobs) Ensure(ctx context.Context, digest string) error {
	_, err := b.store.Stat(digest)
	if err == nil || errs.CodeOf(err) != errs.NotFound {
		return err
	}
	var tried []error
	for _, n := range b.others(digest) {
		url := cluster.PeerURL(n.ID, n.ClusterAddr, "")
		if _, err := artifact.Size(ctx, b.client, url, digest); err != nil {
			tried = append(tried, fmt.Errorf("node %s: %w", n.ID, err))
			continue
		}
		if _, err := b.store.Fetch(ctx, b.client, url, digest); err != nil {
			if errs.CodeOf(err) == errs.DiskFull || ctx.Err() != nil {
				return err
			}
			tried = append(tried, fmt.Errorf("node %s: %w", n.ID, err))
			continue
		}
		return nil
	}
	return errs.New(errs.BlobMissing, "no node that answers has %s: %w", digest, errors.Join(tried...)).
		WithHint("bring back a node that had it, or deploy again")
}

// others lists the other nodes: ready ones that hold the digest first, then ready ones, then the rest.
func (b *blobs) others(digest string) []*fsm.Node {
	s := b.state()
	var holders []string
	if known := s.Blob(digest); known != nil {
		holders = known.Nodes
	}
	var nodes []*fsm.Node
	for n := range s.Nodes() {
		if n.ID != b.self {
			nodes = append(nodes, n)
		}
	}
	weight := func(n *fsm.Node) int {
		w := 0
		if n.State == fsm.NodeReady {
			w -= 2
		}
		if slices.Contains(holders, n.ID) {
			w--
		}
		return w
	}
	slices.SortStableFunc(nodes, func(x, y *fsm.Node) int { return weight(x) - weight(y) })
	return nodes
}

// Open implements agent.Blobs.
func (b *blobs) Open(digest string) (*os.File, error) { return b.store.Get(digest) }

// Drop implements agent.Blobs. What was stored a moment ago stays for now: an upload is stored before the deployment that
// refers to it is committed, and may be of content that nothing else refers to any more.
func (b *blobs) Drop(_ context.Context, digest string) error {
	at, err := b.store.Stored(digest)
	if errs.CodeOf(err) == errs.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if age := time.Since(at); age < dropAge {
		return errs.New(errs.Conflict, "%s was stored %s ago and may be needed", digest, age.Round(time.Second))
	}
	return b.store.Remove(digest)
}

// Put implements agent.Blobs.
func (b *blobs) Put(ctx context.Context, r io.Reader) (fsm.Held, error) { return b.keep(ctx, r, 0) }

// keep stores what r gives here and on others, and returns when a majority has it. A limit of 0 is none.
func (b *blobs) keep(ctx context.Context, r io.Reader, limit int64) (fsm.Held, error) {
	ref, err := b.store.Put(ctx, r, limit)
	if err != nil {
		return fsm.Held{}, err
	}
	nodes, err := b.spread(ctx, ref.Digest)
	return fsm.Held{Digest: ref.Digest, Size: ref.Size, Nodes: nodes}, err
}

// spread pushes a blob to the other nodes, all at once, until enough have it: a majority of the voters, or all of
// fewer than three. Those that are slower go on by themselves for a while.
func (b *blobs) spread(ctx context.Context, digest string) ([]string, error) {
	held, need := []string{b.self}, fsm.Majority(b.voters())
	others := b.others(digest)
	type outcome struct {
		node string
		err  error
	}
	results := make(chan outcome, len(others))
	for _, n := range others {
		go func() {
			push, cancel := context.WithTimeout(context.WithoutCancel(ctx), pushTime)
			defer cancel()
			results <- outcome{n.ID, b.store.Push(push, b.client, cluster.PeerURL(n.ID, n.ClusterAddr, ""), digest)}
		}()
	}
	var failed []error
	for range others {
		if len(held) >= need {
			break
		}
		select {
		case r := <-results:
			if r.err == nil {
				held = append(held, r.node)
				continue
			}
			failed = append(failed, fmt.Errorf("node %s: %w", r.node, r.err))
		case <-ctx.Done():
			return nil, errs.New(errs.Timeout, "store %s on a majority: %w", digest, ctx.Err())
		}
	}
	if len(held) < need {
		return nil, errs.New(errs.Unavailable, "%s is on %d of the %d nodes it needs: %w", digest, len(held), need, errors.Join(failed...)).
			WithHint("try again when more nodes can be reached")
	}
	slices.Sort(held)
	return held, nil
}
