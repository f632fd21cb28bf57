package fsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"kontiki/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mine is a command that blows up after it has changed something, as a defect would.
type mine struct {
	Name string `cbor:"name"`
}

func (mine) Kind() Kind { return "test.mine" }

func init() {
	register(true, func(t *tx, _ Command, b mine) (any, error) {
		p := &Project{Name: b.Name}
		put(t, tableProjects, p, &p.Indexes)
		t.order(&Repair{Kind: RepairForget, Node: "n1", Project: b.Name})
		panic("boom")
	}, func(b mine) string { return b.Name })
}

// A command that panics is left out on every node alike: the others of its entry take effect as if it were not there.
func TestPanickingCommandIsLeftOut(t *testing.T) {
	var hashes []string
	for range 2 {
		m := three(t)
		r := m.send(m.stamp(ProjectCreate{Name: "a"}), m.stamp(mine{"x"}), m.stamp(RepairOrder{Repair: RepairForget, Node: "n2", Project: "old"}),
			m.stamp(mine{"y"}), m.stamp(ProjectCreate{Name: "b"}))
		for i, want := range []errs.Code{"", errs.Internal, "", errs.Internal, ""} {
			if errs.CodeOf(errOf(r[i])) != want {
				t.Errorf("command %d gives %+v, want %q", i, r[i], want)
			}
		}
		s := m.state()
		if s.Project("a") == nil || s.Project("b") == nil || s.Project("x") != nil || s.Project("y") != nil {
			t.Errorf("projects are %s", ids(s.Projects(""), func(p *Project) string { return p.Name }))
		}
		if s.Repair(fmt.Sprintf("r%d-1", m.index)) == nil || count(s.Repairs()) != 1 {
			t.Errorf("repairs are %s", ids(s.Repairs(), func(r *Repair) string { return r.ID }))
		}
		hashes = append(hashes, m.hash())
	}
	if hashes[0] != hashes[1] {
		t.Error("two machines differ")
	}
}

func TestUnknownCommand(t *testing.T) {
	m := three(t)
	cmd := m.stamp(Checkpoint{})
	cmd.Kind, cmd.Optional = "from.tomorrow", true
	if r := m.send(cmd)[0]; errs.CodeOf(errOf(r)) != errs.UnknownCommand || m.f.Halted() != nil {
		t.Errorf("an optional one gives %+v and halts with %v", r, m.f.Halted())
	}
	cmd.Optional = false
	if r := m.send(cmd)[0]; errs.CodeOf(errOf(r)) != errs.UnknownCommand {
		t.Errorf("a required one gives %+v", r)
	}
	if err := m.f.Halted(); errs.CodeOf(err) != errs.UnknownCommand || !strings.Contains(err.Error(), "from.tomorrow") {
		t.Errorf("halted by %v", err)
	}
	at := fmt.Sprint(m.index)
	cmd.Kind = "from.the.day.after"
	m.send(cmd)
	if err := m.f.Halted(); !strings.Contains(err.Error(), "entry "+at) {
		t.Errorf("the first reason is lost: %v", err)
	}
}

// What the leader of a former term decided does nothing, and is not remembered either.
func TestTermFence(t *testing.T) {
	m := three(t)
	m.term = 5
	cmd := m.stamp(ProjectCreate{Name: "blog"})
	cmd.Term = 4
	before := m.hash()
	if r := m.send(cmd)[0]; errs.CodeOf(errOf(r)) != errs.StaleReport || m.hash() != before {
		t.Errorf("result is %+v", r)
	}
	if cmd.Term = 5; m.send(cmd)[0].Err != nil || m.state().Project("blog") == nil {
		t.Error("what the leader of this term decided is refused")
	}
	if cmd.Term = 4; !m.send(cmd)[0].Replayed {
		t.Error("a retry is not answered with what was done")
	}
}

func TestWaitAndChanged(t *testing.T) {
	m := three(t)
	if err := m.f.Wait(soon(t), m.index); err != nil {
		t.Error(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.f.Wait(gone, m.index+1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting gives %v", err)
	}
	changed := m.f.Changed()
	select {
	case <-changed:
		t.Error("it changed before anything was applied")
	default:
	}
	done, ctx, at := make(chan error, 1), soon(t), m.index+3
	go func() { done <- m.f.Wait(ctx, at) }()
	for range 3 {
		m.ok(Checkpoint{})
	}
	<-changed
	if err := <-done; err != nil || m.f.Applied() != at {
		t.Errorf("waited: %v, applied %d", err, m.f.Applied())
	}
}

func TestAudit(t *testing.T) {
	m := three(t)
	m.ok(ProjectCreate{Name: "blog"})
	m.send(m.stamp(ProjectCreate{Name: strings.Repeat("x", 5000)}))
	m.ok(Checkpoint{}) // no change by a user
	a := m.f.Audit(2)
	if len(a) != 2 || a[0].Refused != string(errs.Invalid) || len(a[0].Object) > 100 || a[1].Object != "blog" || a[1].Refused != "" ||
		a[1].Actor != "alice" || a[1].Action != "project.create" || a[1].Index != m.index-2 || a[1].At == 0 {
		t.Errorf("audit is %+v", a)
	}
	if all := m.f.Audit(1000); all[len(all)-1].Action != "cluster.init" {
		t.Errorf("the oldest record is %+v", all[len(all)-1])
	}
}

func TestAuditIsBounded(t *testing.T) {
	m := three(t)
	for range (keepAudit + 2*ringChunk) / 100 {
		cmds := make([]Command, 100)
		for i := range cmds {
			cmds[i] = m.stamp(ProjectDelete{Name: "none"})
		}
		m.send(cmds...)
	}
	if n := len(m.f.Audit(1 << 20)); n < keepAudit || n > keepAudit+100+ringChunk {
		t.Errorf("%d records are kept", n)
	}
}

// A view never changes, whatever is applied after it was taken.
func TestStateIsUnchanging(t *testing.T) {
	m := three(t)
	id := m.start(1, "blog")
	s := m.state()
	d, before := s.Deployment(id), encode(s.Deployment(id))
	m.until(id, PhaseActive)
	if s.Deployment(id) != d || !bytes.Equal(encode(d), before) || s.Project("blog").Active != "" {
		t.Errorf("the view changed: %+v", d)
	}
	if now := m.state(); now.Deployment(id).Status != StatusActive || now.Index != m.index {
		t.Errorf("a new view of %d shows %s", now.Index, now.Deployment(id).Status)
	}
}
