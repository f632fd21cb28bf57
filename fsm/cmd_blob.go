package fsm

import (
	"slices"

	"kontiki/errs"
)

// BlobHeld says that a node holds, or no longer holds, a blob.
type BlobHeld struct {
	Digest string `cbor:"digest"`
	Size   int64  `cbor:"size"`
	Node   string `cbor:"node"`
	Gone   bool   `cbor:"gone,omitempty"`
}

// Kind implements Body.
func (BlobHeld) Kind() Kind { return "blob.held" }

func init() { register(false, applyBlobHeld, func(b BlobHeld) string { return b.Digest }) }

func applyBlobHeld(t *tx, _ Command, b BlobHeld) (any, error) {
	if t.state().Node(b.Node) == nil {
		return nil, notFound("node", b.Node)
	}
	if !ValidDigest(b.Digest) || b.Size < 0 {
		return nil, errs.New(errs.BadCommand, "a blob needs a digest and a size, not %q and %d", clip(b.Digest), b.Size)
	}
	if b.Gone {
		t.lost(b.Digest, b.Node)
		return nil, nil
	}
	t.holds(b.Digest, b.Size, b.Node)
	return nil, nil
}

// holds records that the nodes have the blob; a size of 0 leaves the known size.
func (t *tx) holds(digest string, size int64, nodes ...string) {
	c := Blob{Digest: digest, Size: size, CreatedAt: t.now}
	if b := t.state().Blob(digest); b != nil {
		c = *b
	}
	before, known := len(c.Nodes), c.Size
	if known == 0 {
		c.Size = size
	}
	for _, n := range nodes {
		if t.state().Node(n) != nil {
			c.Nodes = with(c.Nodes, n)
		}
	}
	if len(c.Nodes) != before || len(c.Nodes) > 0 && c.Size != known {
		put(t, tableBlobs, &c, &c.Indexes)
	}
}

// lost records that the node has the blob no more; a blob that nobody has is forgotten.
func (t *tx) lost(digest, node string) {
	b := t.state().Blob(digest)
	if b == nil || !slices.Contains(b.Nodes, node) {
		return
	}
	c := *b
	if c.Nodes = without(b.Nodes, node); len(c.Nodes) == 0 {
		drop(t, tableBlobs, digest, b)
		return
	}
	put(t, tableBlobs, &c, &c.Indexes)
}
