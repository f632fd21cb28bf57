package httpapi

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

func (s *server) health(c *call) error {
	return c.reply(http.StatusOK, api.Health{Status: "ok", Node: s.Node.ID()})
}

func (s *server) ready(c *call) error {
	s.stamp(c, s.Replica.State().Index)
	if err := s.Node.Ready(); err != nil {
		if errs.Status(errs.CodeOf(err)) != http.StatusServiceUnavailable {
			err = errs.New(errs.Unavailable, "the node is not ready: %w", err)
		}
		return err
	}
	return c.reply(http.StatusOK, api.Health{Status: "ok", Node: s.Node.ID()})
}

func (s *server) version(c *call) error {
	state, err := s.view(c)
	if err != nil {
		return err
	}
	v := api.Version{Version: s.Node.Version(), Node: s.Node.ID(), Go: runtime.Version()}
	if cl := state.Cluster(); cl != nil {
		v.Cluster = cl.ID
	}
	return c.reply(http.StatusOK, v)
}

func (s *server) cluster(c *call) error {
	if _, err := s.view(c); err != nil {
		return err
	}
	status, err := s.Members.Status(c.Request.Context())
	if err != nil {
		return fmt.Errorf("ask for the cluster's status: %w", err)
	}
	return c.reply(http.StatusOK, status)
}

func (s *server) peers(c *call) error {
	if _, err := s.view(c); err != nil {
		return err
	}
	status, err := s.Members.Status(c.Request.Context())
	if err != nil {
		return fmt.Errorf("ask for the cluster's status: %w", err)
	}
	p := page[api.Peer]{items: status.Peers}
	return p.answer(c)
}

func (s *server) removePeer(c *call) error {
	id := c.Param("id")
	// A node that is gone already may be a repetition of this request, which the state machine knows.
	if s.Replica.State().Node(id) != nil {
		if err := s.Members.CheckRemoval(id); err != nil {
			return err
		}
	}
	if _, err := s.propose(c, fsm.NodeRemove{ID: id}, nil); err != nil {
		return err
	}
	return c.empty()
}

func (s *server) hashes(c *call) error {
	if _, err := s.view(c); err != nil {
		return err
	}
	h, err := s.Members.Hashes(c.Request.Context())
	if err != nil {
		return fmt.Errorf("compare the nodes: %w", err)
	}
	return c.reply(http.StatusOK, h)
}

func (s *server) join(c *call) error {
	var in api.JoinRequest
	if err := c.decodeJSON(&in); err != nil {
		return err
	}
	if err := checkJoin(in); err != nil {
		return err
	}
	answer, err := s.Members.Admit(c.Request.Context(), in)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, answer)
}

func checkJoin(in api.JoinRequest) error {
	if in.Token == "" || len(in.Token) > 1024 {
		return errs.New(errs.JoinToken, "the request carries no join token").WithField("token").
			WithHint("make one with: kontiki token join")
	}
	if err := checkName("node.id", "node", in.Node.ID); err != nil {
		return err
	}
	for _, a := range []struct{ field, address string }{
		{"node.cluster_addr", in.Node.ClusterAddr}, {"node.api_addr", in.Node.APIAddr}, {"node.ingress_addr", in.Node.IngressAddr}} {
		if err := checkAddress(a.field, a.address); err != nil {
			return err
		}
	}
	if len(in.CSR) == 0 {
		return errs.New(errs.Invalid, "the certificate request is missing").WithField("csr").WithHint("join with: kontiki join")
	}
	return nil
}

func checkAddress(field, address string) error {
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || host == "" || len(host) > 253 || !printable(host) {
		return errs.New(errs.Invalid, "%q is not an address", clip(address)).WithField(field).WithHint("give host:port, as the other nodes reach it")
	}
	return nil
}

func (s *server) listRepairs(c *call) error {
	l, err := c.listing("repairs")
	if err != nil {
		return err
	}
	states := []fsm.StepState{fsm.StepPending, fsm.StepDone, fsm.StepFailed, fsm.StepAbandoned}
	wanted, err := oneOf(c.query, "state", states)
	if err != nil {
		return err
	}
	state, err := s.view(c)
	if err != nil {
		return err
	}
	node := c.query["node"]
	var all []*fsm.Repair
	for r := range state.Repairs() {
		if (node == "" || r.Node == node) && (wanted == "" || r.State == wanted) {
			all = append(all, r)
		}
	}
	// Newest first; the place of a repair in the list is the entry that ordered it, then its own ID.
	place := func(r *fsm.Repair) string { return fmt.Sprintf("%020d %s", r.CreateIndex, r.ID) }
	slices.SortFunc(all, func(a, b *fsm.Repair) int { return cmp.Compare(place(b), place(a)) })
	p := &page[*fsm.Repair]{listing: l}
	for _, r := range all {
		if at := place(r); (l.after == "" || at < l.after) && !p.add(r, at) {
			break
		}
	}
	return p.answer(c)
}

// allAudit is more than there ever are.
const allAudit = 1 << 20

func (s *server) listAudit(c *call) error {
	l, err := c.listing("audit")
	if err != nil {
		return err
	}
	if _, err := s.view(c); err != nil {
		return err
	}
	n := l.limit + 1
	if l.after != "" {
		n = allAudit
	}
	// Newest first; the place of a record is its entry and how many records of that entry came before in the list.
	p := &page[fsm.Audit]{listing: l}
	var index uint64
	nth := 0
	for _, a := range s.Node.Audit(n) {
		if nth++; a.Index != index {
			index, nth = a.Index, 0
		}
		at := fmt.Sprintf("%020d %06d", ^a.Index, nth)
		if (l.after == "" || at > l.after) && !p.add(a, at) {
			break
		}
	}
	return p.answer(c)
}
