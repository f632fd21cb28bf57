package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"kontiki/cluster"
	"kontiki/errs"
	"kontiki/fsm"
)

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// blobs is one process's way to its own disk's blobs and, over the network, to the others'.
type blobs struct {
	n      *node
	client *http.Client
}

// Ensure implements agent.Blobs.
func (b *blobs) Ensure(ctx context.Context, digest string) error {
	if b.n.disk.has(digest) {
		return nil
	}
	for _, other := range b.n.w.nodes {
		if other.id == b.n.id {
			continue
		}
		content, err := b.ask(ctx, http.MethodGet, other.id, digest, nil)
		if err == nil && digestOf(content) == digest {
			return b.n.disk.do(ctx, func() error { b.n.disk.blobs[digest] = content; return nil })
		}
	}
	return errs.New(errs.BlobMissing, "nobody who answers has %s", digest)
}

func (b *blobs) ask(ctx context.Context, method, other, digest string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, cluster.PeerURL(other, other, "/blobs/"+digest), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	content, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("node %s answers %s", other, resp.Status)
	}
	return content, err
}

// Open implements agent.Blobs. Nobody here reads the content.
func (b *blobs) Open(digest string) (*os.File, error) {
	if !b.n.disk.has(digest) {
		return nil, errs.New(errs.NotFound, "no blob %s", digest)
	}
	return os.Open(os.DevNull)
}

// Put implements agent.Blobs: it acknowledges what a majority has.
func (b *blobs) Put(ctx context.Context, r io.Reader) (fsm.Held, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return fsm.Held{}, err
	}
	held := fsm.Held{Digest: digestOf(content), Size: int64(len(content)), Nodes: []string{b.n.id}}
	b.n.disk.put(held.Digest, content)
	need := fsm.Majority(len(b.n.w.nodes))
	for _, other := range b.n.w.nodes {
		if other.id == b.n.id || len(held.Nodes) == need {
			continue
		}
		if _, err := b.ask(ctx, http.MethodPut, other.id, held.Digest, content); err == nil {
			held.Nodes = append(held.Nodes, other.id)
		}
	}
	slices.Sort(held.Nodes)
	if len(held.Nodes) < need {
		return fsm.Held{}, errs.New(errs.Unavailable, "%s is on %v only", held.Digest, held.Nodes)
	}
	return held, nil
}

// Drop implements agent.Blobs.
func (b *blobs) Drop(ctx context.Context, digest string) error {
	return b.n.disk.do(ctx, func() error { delete(b.n.disk.blobs, digest); return nil })
}
