package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"slices"
)

// bolt trusts its file: given damaged pages it panics, some of it on goroutines of its own where nobody can catch it,
// or it shows a shorter tree without a word. So before bolt opens the file its structure is verified here, by the
// rules bolt writes by (go.etcd.io/bbolt/internal/common): both meta pages with their checksums; every page reachable
// once, of a known kind and with its own number; elements that fill their page without a gap, in the order of their
// keys. What the elements hold is verified by the checksums in it (integrity.go), and that the tree is the newest one
// by the witness.
//
// Of the two meta pages bolt would use the older when the newer is damaged, and so forget the last write. A write torn
// by a power cut looks the same as a flipped bit. We refuse both: the meta page is far smaller than a sector, and the
// other nodes have the data.

const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64 // without the checksum: 56 bytes
	pageHeader  = 16
	element     = 16

	pageBranch = 0x01
	pageLeaf   = 0x02
	pageMeta   = 0x04
	flagBucket = 0x01
)

// boltFileCheck reads the pages of one file.
type boltFileCheck struct {
	file     *os.File
	pageSize int64
	end      uint64 // the first page number that is not in use
	seen     map[uint64]bool
}

// boltBuckets are the buckets raft-boltdb makes, with the keys Raft puts into the one of settings.
var (
	boltBuckets = []string{"conf", "logs"}
	boltKeys    = []string{"CurrentTerm", "LastVoteCand", "LastVoteTerm"}
)

// checkBolt verifies the file's structure. expect says that there must be something in it.
func checkBolt(path string, expect bool) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if expect {
			return errors.New("it is gone, but this node has had state before")
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		if expect {
			return errors.New("it is empty, but this node has had state before")
		}
		return nil // the process died right after making it
	}
	c := &boltFileCheck{file: f, seen: map[uint64]bool{}}
	return c.check(info.Size())
}

func (c *boltFileCheck) check(size int64) error {
	root, err := c.metas()
	if err != nil {
		return err
	}
	if int64(c.end)*c.pageSize > size {
		return fmt.Errorf("it is cut short: %d bytes of at least %d", size, int64(c.end)*c.pageSize)
	}
	var found []string
	err = c.walk(root, bounds{}, func(flags uint32, key, value []byte) error {
		found = append(found, string(key))
		return c.bucket(flags, string(key), value)
	})
	if err == nil && len(found) > 0 && !slices.Equal(found, boltBuckets) {
		err = fmt.Errorf("it holds %q, not the buckets of a Raft log", found)
	}
	return err
}

// metas verifies both meta pages and gives the root of the newer.
func (c *boltFileCheck) metas() (root uint64, err error) {
	head := make([]byte, pageHeader+metaSize)
	if _, err := c.file.ReadAt(head, 0); err != nil {
		return 0, fmt.Errorf("read the first meta page: %w", err)
	}
	c.pageSize = int64(binary.LittleEndian.Uint32(head[pageHeader+8:]))
	if c.pageSize < 512 || c.pageSize > 1<<20 {
		return 0, fmt.Errorf("the first meta page gives a page size of %d", c.pageSize)
	}
	var newest uint64
	for page := range uint64(2) {
		if _, err := c.file.ReadAt(head, int64(page)*c.pageSize); err != nil {
			return 0, fmt.Errorf("read meta page %d: %w", page, err)
		}
		meta := head[pageHeader:]
		sum := fnv.New64a()
		sum.Write(meta[:metaSize-8])
		switch {
		case binary.LittleEndian.Uint64(head) != page, binary.LittleEndian.Uint16(head[8:]) != pageMeta:
			return 0, fmt.Errorf("page %d is not a meta page", page)
		case binary.LittleEndian.Uint32(meta) != metaMagic, binary.LittleEndian.Uint32(meta[4:]) != metaVersion,
			int64(binary.LittleEndian.Uint32(meta[8:])) != c.pageSize,
			binary.LittleEndian.Uint64(meta[metaSize-8:]) != sum.Sum64():
			return 0, fmt.Errorf("meta page %d fails its checksum", page)
		}
		if tx := binary.LittleEndian.Uint64(meta[48:]); page == 0 || tx > newest {
			newest = tx
			root, c.end = binary.LittleEndian.Uint64(meta[16:]), binary.LittleEndian.Uint64(meta[40:])
		}
	}
	return root, nil
}

// bucket verifies one of the two buckets of a Raft log.
func (c *boltFileCheck) bucket(flags uint32, name string, value []byte) error {
	if flags != flagBucket || len(value) < 16 {
		return fmt.Errorf("%q is not a bucket", name)
	}
	entry := func(flags uint32, key, _ []byte) error {
		known := name == "logs" && len(key) == 8 || name == "conf" && slices.Contains(boltKeys, string(key))
		if flags != 0 || !known {
			return fmt.Errorf("bucket %s has an unknown key %q", name, key)
		}
		return nil
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return c.walk(root, bounds{}, entry)
	}
	p, err := parsePage(value[16:]) // a small bucket lives inside its parent
	if err != nil {
		return fmt.Errorf("bucket %s: %w", name, err)
	}
	return p.leaves(bounds{}, entry)
}

// bounds are the keys between which those of a page must lie: low <= key < high; nil is no bound.
type bounds struct{ low, high []byte }

// walk verifies the tree below a page and gives its leaves' elements in order.
func (c *boltFileCheck) walk(id uint64, within bounds, leaf func(flags uint32, key, value []byte) error) error {
	p, err := c.read(id)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	if p.flags == pageLeaf {
		if err := p.leaves(within, leaf); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		return nil
	}
	if p.flags != pageBranch || len(p.elements) == 0 {
		return fmt.Errorf("page %d is of an unknown kind", id)
	}
	for i, e := range p.elements {
		below := bounds{e.key, within.high}
		if i+1 < len(p.elements) {
			below.high = p.elements[i+1].key
		}
		if err := e.in(within); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		if err := c.walk(e.child, below, leaf); err != nil {
			return err
		}
	}
	return nil
}

// boltPage is a page taken apart.
type boltPage struct {
	id       uint64
	flags    uint16
	overflow uint32
	used     int64 // bytes
	elements []boltElement
}

type boltElement struct {
	key, value []byte
	flags      uint32 // of a leaf
	child      uint64 // of a branch
}

func (e boltElement) in(b bounds) error {
	if b.low != nil && bytes.Compare(e.key, b.low) < 0 || b.high != nil && bytes.Compare(e.key, b.high) >= 0 {
		return fmt.Errorf("key %q is out of order", e.key)
	}
	return nil
}

func (c *boltFileCheck) read(id uint64) (boltPage, error) {
	if id < 2 || id >= c.end || c.seen[id] {
		return boltPage{}, errors.New("it cannot be part of the tree")
	}
	c.seen[id] = true
	head := make([]byte, pageHeader)
	if _, err := c.file.ReadAt(head, int64(id)*c.pageSize); err != nil {
		return boltPage{}, err
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if id+overflow >= c.end {
		return boltPage{}, errors.New("it reaches beyond the end")
	}
	data := make([]byte, c.pageSize*int64(overflow+1))
	if _, err := c.file.ReadAt(data, int64(id)*c.pageSize); err != nil {
		return boltPage{}, err
	}
	p, err := parsePage(data)
	switch {
	case err != nil:
		return p, err
	case p.id != id:
		return p, fmt.Errorf("it says it is page %d", p.id)
	case (p.used+c.pageSize-1)/c.pageSize != int64(overflow)+1:
		return p, fmt.Errorf("it says it takes %d pages for %d bytes", overflow+1, p.used)
	}
	return p, nil
}

// parsePage takes a page apart. bolt writes the elements' keys and values one after another behind the elements, so
// where each begins is known before it is read.
func parsePage(data []byte) (boltPage, error) {
	if len(data) < pageHeader {
		return boltPage{}, errors.New("it is cut short")
	}
	p := boltPage{
		id: binary.LittleEndian.Uint64(data), flags: binary.LittleEndian.Uint16(data[8:]), overflow: binary.LittleEndian.Uint32(data[12:]),
	}
	count := int64(binary.LittleEndian.Uint16(data[10:]))
	p.used = pageHeader + count*element
	if p.used > int64(len(data)) || p.flags != pageLeaf && p.flags != pageBranch {
		return p, errors.New("its header makes no sense")
	}
	for i := range count {
		at := pageHeader + i*element
		raw := data[at : at+element]
		var e boltElement
		var pos, keySize, valueSize int64
		if p.flags == pageLeaf {
			e.flags = binary.LittleEndian.Uint32(raw)
			pos, keySize = int64(binary.LittleEndian.Uint32(raw[4:])), int64(binary.LittleEndian.Uint32(raw[8:]))
			valueSize = int64(binary.LittleEndian.Uint32(raw[12:]))
		} else {
			pos, keySize = int64(binary.LittleEndian.Uint32(raw)), int64(binary.LittleEndian.Uint32(raw[4:]))
			e.child = binary.LittleEndian.Uint64(raw[8:])
		}
		if at+pos != p.used || p.used+keySize+valueSize > int64(len(data)) {
			return p, fmt.Errorf("element %d of %d is not where it belongs", i+1, count)
		}
		e.key = data[p.used : p.used+keySize]
		e.value = data[p.used+keySize : p.used+keySize+valueSize]
		p.used += keySize + valueSize
		p.elements = append(p.elements, e)
	}
	return p, nil
}

// leaves verifies the order of a leaf page's elements and gives each.
func (p boltPage) leaves(within bounds, leaf func(flags uint32, key, value []byte) error) error {
	if p.flags != pageLeaf {
		return errors.New("it is not a leaf")
	}
	for i, e := range p.elements {
		if err := e.in(within); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(p.elements[i-1].key, e.key) >= 0 {
			return fmt.Errorf("key %q comes after %q", e.key, p.elements[i-1].key)
		}
		if err := leaf(e.flags, e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}
