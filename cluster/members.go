package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"kontiki/errs"
	"kontiki/fault"
)

const (
	// maxVoters is how many nodes vote; each write waits for more than half of them.
	maxVoters = 5
	// caughtUp is how many entries a node may be behind and still become a voter.
	caughtUp = 100
)

// DesiredMember is a node that belongs to the cluster, whatever Raft's configuration says so far.
type DesiredMember struct{ ID, Addr string }

// ManageMembers brings the configuration to what desired gives, one change at a time, until ctx is done. It is part
// of the leader's role. Each pass looks at what is there and takes the next step, so a new leader just goes on. It
// looks again when changed's channel is closed, and from time to time, because nodes come and go by themselves.
func (c *Cluster) ManageMembers(ctx context.Context, desired func() []DesiredMember, changed func() <-chan struct{}) {
	reported := ""
	for ctx.Err() == nil {
		wake := changed()
		s := c.survey(ctx, desired())
		step := nextStep(s)
		err := c.take(ctx, step)
		if err == nil && step.kind != stepNone {
			c.log.Info("membership changed", "step", step.kind, "member", step.member.ID)
			reported = ""
			continue
		}
		if text := step.String(); (err != nil || step.why != "") && text != reported && ctx.Err() == nil {
			reported = text // the same obstacle is told once
			c.log.Warn("membership change waits", "step", step.kind, "member", step.member.ID, "why", step.why, "err", err)
		}
		c.idle(ctx, wake)
	}
}

func (c *Cluster) idle(ctx context.Context, wake <-chan struct{}) {
	timer := time.NewTimer(c.cfg.Timing.Try)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// survey is what a membership decision is made from.
type survey struct {
	self    string
	members []Member
	desired []DesiredMember
	silent  map[string]time.Duration // of other members, time out of contact
	lost    time.Duration            // from when on a voter is given up
	// behind is how far nodes that are no voters are behind, by ID; one that does not answer is not in it.
	behind map[string]uint64
}

type stepKind string

const (
	stepNone     stepKind = "none"
	stepAdd      stepKind = "add"
	stepPromote  stepKind = "promote"
	stepDemote   stepKind = "demote"
	stepMove     stepKind = "move"
	stepRemove   stepKind = "remove"
	stepTransfer stepKind = "transfer"
)

// step is one change; why says what keeps one from being made.
type step struct {
	kind   stepKind
	member Member
	why    string
}

// String gives the step as a line of a log.
func (s step) String() string { return string(s.kind) + " " + s.member.ID + " " + s.why }

// nextStep decides. It is a pure function; of several possible steps it takes the one that makes the group safer
// first: more voters before fewer.
func nextStep(s survey) step {
	for _, choose := range []func(survey) (step, bool){addStep, promoteStep, replaceStep, removeStep} {
		if st, ok := choose(s); ok {
			return st
		}
	}
	return step{kind: stepNone}
}

// addStep adds, as a non-voter, a node that is wanted and answers; a voter would count before it could vote. A node
// that has moved gets its new address in the same way.
func addStep(s survey) (step, bool) {
	for _, d := range s.desired {
		i := slices.IndexFunc(s.members, func(m Member) bool { return m.ID == d.ID })
		_, answers := s.behind[d.ID]
		switch {
		case i < 0 && answers:
			return step{kind: stepAdd, member: Member{ID: d.ID, Addr: d.Addr}}, true
		case i >= 0 && s.members[i].Addr != d.Addr && (answers || d.ID == s.self):
			return step{kind: stepMove, member: Member{ID: d.ID, Addr: d.Addr, Voter: s.members[i].Voter}}, true
		}
	}
	return step{}, false
}

func promoteStep(s survey) (step, bool) {
	if m, ok := s.successor(); ok && len(s.voters()) < maxVoters {
		return step{kind: stepPromote, member: m}, true
	}
	return step{}, false
}

// replaceStep makes room for a non-voter that could vote, where all places are taken and one voter has been away for
// long. It stays a member, and votes again when there is room.
func replaceStep(s survey) (step, bool) {
	if _, ok := s.successor(); !ok {
		return step{}, false
	}
	for _, m := range s.voters() {
		if s.silent[m.ID] >= s.lost && s.keepsQuorumWithout(m.ID) {
			return step{kind: stepDemote, member: m}, true
		}
	}
	return step{}, false
}

// successor gives the non-voter that is wanted and furthest along, if one is near enough to vote.
func (s survey) successor() (Member, bool) {
	var able []Member
	for _, m := range s.members {
		behind, answers := s.behind[m.ID]
		if !m.Voter && answers && behind <= caughtUp && s.silent[m.ID] == 0 && s.wants(m.ID) {
			able = append(able, m)
		}
	}
	if len(able) == 0 {
		return Member{}, false
	}
	return slices.MinFunc(able, func(a, b Member) int {
		return cmp.Or(cmp.Compare(s.behind[a.ID], s.behind[b.ID]), cmp.Compare(a.ID, b.ID))
	}), true
}

func (s survey) wants(id string) bool {
	return slices.ContainsFunc(s.desired, func(d DesiredMember) bool { return d.ID == id })
}

// removeStep removes a member that is wanted no more. An empty list of desired members is never taken for a wish.
func removeStep(s survey) (step, bool) {
	if len(s.desired) == 0 {
		return step{}, false
	}
	for _, m := range s.members {
		switch {
		case s.wants(m.ID):
		case !s.keepsQuorumWithout(m.ID):
			return step{kind: stepNone, member: m, why: "the group would lose its majority"}, true
		case m.ID == s.self:
			return step{kind: stepTransfer, member: m}, true
		default:
			return step{kind: stepRemove, member: m}, true
		}
	}
	return step{}, false
}

func (s survey) voters() []Member {
	return slices.DeleteFunc(slices.Clone(s.members), func(m Member) bool { return !m.Voter })
}

// keepsQuorumWithout reports whether the voters that answer are a majority of those that are left.
func (s survey) keepsQuorumWithout(id string) bool {
	left, answer := 0, 0
	for _, m := range s.voters() {
		if m.ID == id {
			continue
		}
		left++
		if s.silent[m.ID] == 0 {
			answer++
		}
	}
	isVoter := slices.ContainsFunc(s.members, func(m Member) bool { return m.ID == id && m.Voter })
	return !isVoter || answer > left/2
}

func (c *Cluster) survey(ctx context.Context, desired []DesiredMember) survey {
	s := survey{
		self: c.cfg.NodeID, members: c.Members(), desired: desired,
		silent: c.silences(), lost: c.cfg.Timing.Lost, behind: map[string]uint64{},
	}
	for _, d := range desired {
		i := slices.IndexFunc(s.members, func(m Member) bool { return m.ID == d.ID })
		if d.ID == s.self || i >= 0 && s.members[i].Voter && s.members[i].Addr == d.Addr {
			continue
		}
		if behind, ok := c.dialBack(ctx, d); ok {
			s.behind[d.ID] = behind
		}
	}
	return s
}

// dialBack asks a node at the address it gave how far it is: one that cannot be reached must not become a member, for
// a group of one would lose its majority to it.
func (c *Cluster) dialBack(ctx context.Context, d DesiredMember) (behind uint64, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timing.Try)
	defer cancel()
	body, err := c.call(ctx, request{http.MethodGet, Member{ID: d.ID, Addr: d.Addr}, pathStatus, nil})
	var status Status
	if err == nil {
		err = json.Unmarshal(body, &status)
	}
	if err != nil || status.NodeID != d.ID || status.ClusterID != c.cfg.ClusterID {
		c.log.Debug("a node does not answer where it should", "member", d.ID, "addr", d.Addr, "err", err)
		return 0, false
	}
	if mine := c.cfg.Machine.Applied(); mine > status.Applied {
		behind = mine - status.Applied
	}
	return behind, true
}

// take carries a step out and waits until it is committed. The barrier after it lets a snapshot be taken: Raft
// refuses one as long as the last thing in the log is a change of the configuration.
func (c *Cluster) take(ctx context.Context, s step) error {
	if s.kind == stepNone {
		return nil
	}
	if err := fault.Point("cluster.members.before"); err != nil {
		return err
	}
	var f raft.Future
	id, addr := raft.ServerID(s.member.ID), serverAddress(s.member.ID, s.member.Addr)
	switch s.kind {
	case stepTransfer:
		return c.TransferLeadership(ctx)
	case stepRemove:
		f = c.raft.RemoveServer(id, 0, c.cfg.Timing.Try)
	case stepDemote:
		f = c.raft.DemoteVoter(id, 0, c.cfg.Timing.Try)
	case stepPromote:
		f = c.raft.AddVoter(id, addr, 0, c.cfg.Timing.Try)
	case stepMove:
		f = c.move(s.member)
	default:
		f = c.raft.AddNonvoter(id, addr, 0, c.cfg.Timing.Try)
	}
	err := c.await(ctx, f)
	if err == nil {
		err = c.await(ctx, c.raft.Barrier(c.cfg.Timing.Try))
	}
	if err == nil {
		err = fault.Point("cluster.members.after")
	}
	return wrap("change the membership", err)
}

// move gives a member its new address, keeping its vote.
func (c *Cluster) move(m Member) raft.Future {
	id, addr := raft.ServerID(m.ID), serverAddress(m.ID, m.Addr)
	if m.Voter {
		return c.raft.AddVoter(id, addr, 0, c.cfg.Timing.Try)
	}
	return c.raft.AddNonvoter(id, addr, 0, c.cfg.Timing.Try)
}

// voters counts, on the leader, the voters that answer, itself among them, and all of them.
func (c *Cluster) voters() (reachable, all int) {
	silent := c.silences()
	for _, m := range c.Members() {
		if m.Voter {
			all++
			if silent[m.ID] == 0 {
				reachable++
			}
		}
	}
	return reachable, all
}

// CheckRemoval says whether a member can be removed: the error is of code QuorumLoss when the voters that are left
// and answer would be no majority, NotFound when there is no such member. Any node can be asked; only the leader
// knows who answers, so the others ask it.
func (c *Cluster) CheckRemoval(id string) error {
	if !slices.ContainsFunc(c.Members(), func(m Member) bool { return m.ID == id }) {
		return errs.New(errs.NotFound, "node %q is not a member of the cluster", id).WithField("id").WithHint("see `kontiki peers`")
	}
	if !c.IsLeader() {
		return c.askRemoval(id)
	}
	s := survey{self: c.cfg.NodeID, members: c.Members(), silent: c.silences()}
	if s.keepsQuorumWithout(id) {
		return nil
	}
	return errs.New(errs.QuorumLoss, "without node %s the cluster would lose its majority", id).WithField("id").
		WithHint("bring back the nodes that do not answer, or add one, first: see `kontiki peers`")
}

func (c *Cluster) askRemoval(id string) error {
	leader, _, _ := c.view.look()
	if leader.ID == "" {
		return c.noLeader()
	}
	ctx, cancel := context.WithTimeout(c.life.ctx, c.cfg.Timing.Try)
	defer cancel()
	_, err := c.call(ctx, request{http.MethodGet, leader, pathRemoval + "?id=" + url.QueryEscape(id), nil})
	if err != nil && errs.CodeOf(err) == errs.Internal {
		return errs.New(errs.Unavailable, "ask the leader: %w", err).WithHint("try again")
	}
	return err
}
