package fsm

import (
	"strings"

	"github.com/hashicorp/go-memdb"
)

// State is a consistent, unchanging view of everything committed up to at least Index.
type State struct {
	Index uint64 // the last entry applied when the view was taken
	txn   *memdb.Txn

	// Inside Apply only: the state before the entry and what the entry has put since.
	before *memdb.Txn
	fresh  overlay
}

func get[T any](s *State, tbl, idx string, k any) *T {
	txn := s.txn
	if s.before != nil && idx == byID {
		if raw, ok := s.fresh.object(tbl, k); ok {
			o, _ := raw.(*T)
			return o
		}
		txn = s.before
	}
	raw, err := txn.First(tbl, idx, k)
	if err != nil {
		panic(err) // tables and indexes are constants of this package
	}
	o, _ := raw.(*T)
	return o
}

func walk[T any](it memdb.ResultIterator, err error) func(yield func(*T) bool) {
	if err != nil {
		panic(err) // tables and indexes are constants of this package
	}
	return func(yield func(*T) bool) {
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*T)) {
				return
			}
		}
	}
}

func all[T any](s *State, tbl string) func(yield func(*T) bool) {
	return walk[T](s.txn.Get(tbl, byID+"_prefix", []byte(nil)))
}

// Cluster gives the cluster object, nil before the first command.
func (s *State) Cluster() *Cluster { return get[Cluster](s, tableCluster, byID, "cluster") }

// Settings gives the settings in force, the defaults before the first command.
func (s *State) Settings() Settings {
	if c := s.Cluster(); c != nil {
		return c.Settings
	}
	return DefaultSettings()
}

// Project finds a project by name; nil when there is none.
func (s *State) Project(name string) *Project { return get[Project](s, tableProjects, byID, name) }

// ProjectByDomain finds the project one of whose own domains this is; nil when there is none.
func (s *State) ProjectByDomain(domain string) *Project {
	return get[Project](s, tableProjects, byDomain, domain)
}

// Projects visits all projects by name, from the first one after the given name on ("" for all).
func (s *State) Projects(after string) func(yield func(*Project) bool) {
	from := []byte(nil)
	if after != "" {
		from = append(key(after), 0)
	}
	return walk[Project](s.txn.LowerBound(tableProjects, byID, from))
}

// Deployment finds a deployment by ID; nil when there is none.
func (s *State) Deployment(id string) *Deployment {
	return get[Deployment](s, tableDeployments, byID, id)
}

// ActiveOf finds the project's active deployment; nil when there is none.
func (s *State) ActiveOf(p *Project) *Deployment {
	if p == nil || p.Active == "" {
		return nil
	}
	return s.Deployment(p.Active)
}

// Deployments visits all deployments from the newest ID down, beginning below the given ID ("" for all).
func (s *State) Deployments(before string) func(yield func(*Deployment) bool) {
	if before == "" {
		before = strings.Repeat("\xff", 27)
	}
	seq := walk[Deployment](s.txn.ReverseLowerBound(tableDeployments, byID, []byte(before)))
	return func(yield func(*Deployment) bool) {
		for d := range seq {
			if d.ID != before && !yield(d) {
				return
			}
		}
	}
}

// DeploymentsOf visits a project's deployments from the highest number down, beginning below the given number (0 for
// all).
func (s *State) DeploymentsOf(project string, before uint64) func(yield func(*Deployment) bool) {
	seq := walk[Deployment](s.txn.ReverseLowerBound(tableDeployments, byProject, ordered(key(project), before-1)))
	return func(yield func(*Deployment) bool) {
		for d := range seq {
			if d.Project != project || !yield(d) {
				return
			}
		}
	}
}

// DeploymentsIn visits the queued, running or active deployments, oldest first.
func (s *State) DeploymentsIn(status Status) func(yield func(*Deployment) bool) {
	return walk[Deployment](s.txn.Get(tableDeployments, byStatus+"_prefix", key(string(status))))
}

// DeploymentsSince visits the deployments changed after the index, in the order of their last change.
func (s *State) DeploymentsSince(index uint64) func(yield func(*Deployment) bool) {
	return walk[Deployment](s.txn.LowerBound(tableDeployments, byModify, ordered(nil, index+1)))
}

// Node finds a node by ID; nil when there is none.
func (s *State) Node(id string) *Node { return get[Node](s, tableNodes, byID, id) }

// Nodes visits the nodes by ID.
func (s *State) Nodes() func(yield func(*Node) bool) { return all[Node](s, tableNodes) }

// Removed reports whether a node of that ID was removed.
func (s *State) Removed(id string) bool { return get[RemovedNode](s, tableRemoved, byID, id) != nil }

// RemovedNodes visits the nodes that were removed, by ID.
func (s *State) RemovedNodes() func(yield func(*RemovedNode) bool) {
	return all[RemovedNode](s, tableRemoved)
}

// TokenByHash finds an API token by the SHA-256 of its secret; nil when there is none.
func (s *State) TokenByHash(hash []byte) *Token {
	if len(hash) == 0 {
		return nil // memdb takes no key for any key
	}
	return get[Token](s, tableTokens, byHash, hash)
}

// Tokens visits the API tokens by ID.
func (s *State) Tokens() func(yield func(*Token) bool) { return all[Token](s, tableTokens) }

// Blob finds what is known of a digest; nil when nothing is.
func (s *State) Blob(digest string) *Blob { return get[Blob](s, tableBlobs, byID, digest) }

// Blobs visits the known blobs by digest.
func (s *State) Blobs() func(yield func(*Blob) bool) { return all[Blob](s, tableBlobs) }

// Repair finds a repair by ID; nil when there is none.
func (s *State) Repair(id string) *Repair { return get[Repair](s, tableRepairs, byID, id) }

// Repairs visits all repairs by ID.
func (s *State) Repairs() func(yield func(*Repair) bool) { return all[Repair](s, tableRepairs) }

// PendingRepairs visits a node's open repairs, oldest first.
func (s *State) PendingRepairs(node string) func(yield func(*Repair) bool) {
	return walk[Repair](s.txn.Get(tableRepairs, byNode+"_prefix", key(node)))
}

// JoinToken finds a join token by its ID; nil when there is none.
func (s *State) JoinToken(id string) *JoinToken { return get[JoinToken](s, tableJoinTokens, byID, id) }
