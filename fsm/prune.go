package fsm

// How much of the past is kept. All of it would grow without bound: in memory, in every snapshot and on its way to every
// node that joins.
const (
	keepDeployments = 100    // of a project, besides those that are at work or serve somewhere
	keepTombstones  = 10_000 // for mirrors, which begin anew when they are further behind
	pruneAtOnce     = 8      // deployments, so that no entry is slow; each new one makes room for several
	pruneLook       = 64     // deployments that are looked at for those, besides the releases that are kept
)

// pruneDeployments forgets a project's oldest deployments that came to an end and serve nowhere, beyond the newest
// keepDeployments of its numbers. It is called when a deployment is added and when one stops to serve.
func (t *tx) pruneDeployments(project string) {
	s := t.state()
	p := s.Project(project)
	if p == nil || p.NextNumber <= keepDeployments+1 {
		return
	}
	var gone []*Deployment
	looked, most := 0, pruneLook+s.Settings().Keep
	for d := range s.oldestOf(project) {
		if looked++; d.Number >= p.NextNumber-keepDeployments || looked > most || len(gone) == pruneAtOnce {
			break
		}
		if d.Status.Terminal() && d.Status != StatusActive && d.ID != p.Active && len(d.Instances) == 0 {
			gone = append(gone, d)
		}
	}
	for _, d := range gone {
		drop(t, tableDeployments, d.ID, d)
	}
}

// oldestOf visits a project's deployments from the lowest number up.
func (s *State) oldestOf(project string) func(yield func(*Deployment) bool) {
	return walk[Deployment](s.txn.Get(tableDeployments, byProject+"_prefix", key(project)))
}

// trimTombstones removes the oldest tombstones beyond those that are kept. Their number is counted along, for counting
// them each time would take long; it is what the table holds, so every node removes the same.
func (t *tx) trimTombstones() {
	t.f.tombstones += len(t.stones)
	excess := t.f.tombstones - keepTombstones
	if excess <= 0 {
		return
	}
	oldest := make([]*Tombstone, 0, excess)
	for stone := range all[Tombstone](t.state(), tableTombstones) {
		if len(oldest) == excess {
			break
		}
		oldest = append(oldest, stone)
	}
	for _, stone := range oldest {
		if err := t.txn.Delete(tableTombstones, stone); err != nil {
			panic(err) // the object is in the table
		}
	}
	t.f.tombstones -= len(oldest)
}
