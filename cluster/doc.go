// Package cluster is a node's Raft life: opening its log, electing, proposing through whichever node leads, reading
// at a linearizable index, running the leader's role, and changing the membership. It knows nothing of what is
// replicated but that commands go in and results come out (StateMachine).
//
// Others see a Cluster, never Raft. The risks that were weighed stand where they are taken: propose.go (one entry in
// flight), forward.go (what a lost answer means), integrity.go and witness.go (what bolt does not notice), stall.go (a
// leader whose disk hangs).
//
// Concurrency: every exported method may be called by any number of goroutines. One goroutine, the dispatcher, alone
// hands commands to Raft or to the leader, so their order is the order of the queue. Run and ManageMembers are loops
// for one caller each. After Close or Kill has returned no goroutine of the package is left.
package cluster
