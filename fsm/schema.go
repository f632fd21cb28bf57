package fsm

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/go-memdb"
)

// The tables and their indexes.
const (
	tableCluster     = "cluster"
	tableProjects    = "projects"
	tableDeployments = "deployments"
	tableNodes       = "nodes"
	tableRemoved     = "removed_nodes"
	tableTokens      = "tokens"
	tableJoinTokens  = "join_tokens"
	tableBlobs       = "blobs"
	tableRepairs     = "repairs"
	tableTombstones  = "tombstones"

	byID      = "id"
	byHash    = "hash"
	byDomain  = "domain"
	byProject = "project"
	byStatus  = "status"
	byModify  = "modify"
	byNode    = "node"
)

// key makes the bytes of a string index; the terminator keeps "ab" from being a prefix match of "a".
func key(parts ...string) []byte {
	size := len(parts)
	for _, p := range parts {
		size += len(p)
	}
	b := make([]byte, 0, size+8) // a number may follow
	for _, p := range parts {
		b = append(b, p...)
		b = append(b, 0)
	}
	return b
}

func ordered(prefix []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(prefix, n) }

// anyKey reads the keys that are asked for, in every index alike.
type anyKey struct{}

// FromArgs takes a ready key, or a string to make one of.
func (anyKey) FromArgs(args ...any) ([]byte, error) { return keyFromArgs(args) }

// PrefixFromArgs takes the first bytes of a key.
func (anyKey) PrefixFromArgs(args ...any) ([]byte, error) { return keyFromArgs(args) }

// index is a memdb index over objects of type *T, without reflection; a nil key leaves the object out.
type index[T any] struct {
	anyKey
	key func(*T) []byte
}

func (x index[T]) FromObject(raw any) (bool, []byte, error) {
	k := x.key(raw.(*T))
	return k != nil, k, nil
}

// multiIndex gives an object any number of keys.
type multiIndex[T any] struct {
	anyKey
	keys func(*T) [][]byte
}

func (x multiIndex[T]) FromObject(raw any) (bool, [][]byte, error) {
	k := x.keys(raw.(*T))
	return len(k) > 0, k, nil
}

func keyFromArgs(args []any) ([]byte, error) {
	if len(args) == 1 {
		switch a := args[0].(type) {
		case []byte:
			return a, nil
		case string:
			return key(a), nil
		}
	}
	return nil, fmt.Errorf("an index takes one key, not %v", args)
}

func unique[T any](name string, k func(*T) []byte) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, Unique: true, Indexer: index[T]{key: k}}
}

func maybe[T any](name string, k func(*T) []byte) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: index[T]{key: k}}
}

func many[T any](name string, k func(*T) [][]byte) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: multiIndex[T]{keys: k}}
}

func table(name string, indexes ...*memdb.IndexSchema) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{}}
	for _, x := range indexes {
		t.Indexes[x.Name] = x
	}
	return t
}

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range []*memdb.TableSchema{
		table(tableCluster, unique(byID, func(*Cluster) []byte { return key("cluster") })),
		table(tableProjects, unique(byID, func(p *Project) []byte { return key(p.Name) }), many(byDomain, domainKeys)),
		table(tableDeployments,
			unique(byID, func(d *Deployment) []byte { return key(d.ID) }),
			unique(byProject, func(d *Deployment) []byte { return ordered(key(d.Project), d.Number) }),
			maybe(byStatus, statusKey),
			unique(byModify, func(d *Deployment) []byte { return append(ordered(nil, d.ModifyIndex), d.ID...) })),
		table(tableNodes, unique(byID, func(n *Node) []byte { return key(n.ID) })),
		table(tableRemoved, unique(byID, func(n *RemovedNode) []byte { return key(n.ID) })),
		table(tableTokens, unique(byID, func(t *Token) []byte { return key(t.ID) }),
			unique(byHash, func(t *Token) []byte { return t.Hash })),
		table(tableJoinTokens, unique(byID, func(t *JoinToken) []byte { return key(t.ID) })),
		table(tableBlobs, unique(byID, func(b *Blob) []byte { return key(b.Digest) })),
		table(tableRepairs, unique(byID, func(r *Repair) []byte { return key(r.ID) }), maybe(byNode, pendingKey)),
		table(tableTombstones, unique(byID, func(t *Tombstone) []byte { return append(ordered(nil, t.ModifyIndex), key(t.Table, t.Key)...) })),
	} {
		s.Tables[t.Name] = t
	}
	return s
}

func domainKeys(p *Project) [][]byte {
	if len(p.Domains) == 0 {
		return nil
	}
	keys := make([][]byte, len(p.Domains))
	for i, d := range p.Domains {
		keys[i] = key(d)
	}
	return keys
}

// statusKey orders deployments of one status by age, for queues; superseded, failed and cancelled ones are not asked
// for that way.
func statusKey(d *Deployment) []byte {
	switch d.Status {
	case StatusQueued, StatusRunning, StatusActive:
		return ordered(key(string(d.Status)), d.CreateIndex)
	}
	return nil
}

// pendingKey finds the open repairs of a node.
func pendingKey(r *Repair) []byte {
	if r.State != StepPending {
		return nil
	}
	return ordered(key(r.Node), r.CreateIndex)
}
