package fsm

import (
	"fmt"
	"strings"
	"testing"

	"kontiki/errs"
)

func TestDeploymentCreate(t *testing.T) {
	m := three(t)
	b := creation(1, "blog")
	b.Nodes = []string{"n3", "n9", "n1"}
	r := m.ok(b)
	var answer DeploymentCreated
	if err := r.Decode(&answer); err != nil || answer.ID != nth(1) || answer.Number != 1 {
		t.Errorf("answer is %+v, %v", answer, err)
	}
	d := m.deployment(nth(1))
	if d.Status != StatusQueued || d.Phase != PhaseQueued || d.PhaseProgress != 0 || d.Actor != "alice" || d.CreatedAt != m.lastTime() || d.Attempt != 1 {
		t.Errorf("deployment is %+v", d)
	}
	if len(d.Events) != 1 || d.Events[0].Message != "queued" || d.Events[0].Index != m.index {
		t.Errorf("events are %+v", d.Events)
	}
	if p := m.state().Project("blog"); p == nil || p.NextNumber != 2 || p.Active != "" {
		t.Errorf("project is %+v", p)
	}
	if blob := m.state().Blob(b.Source.Digest); held(blob) != "n1 n3" || blob.Size != 100 {
		t.Errorf("source is %+v", blob)
	}
}

func TestDeploymentCreateRefusals(t *testing.T) {
	m := three(t)
	m.create(1, "blog")
	for name, c := range map[string]struct {
		change func(*DeploymentCreate)
		code   errs.Code
	}{
		"no ULID":            {func(b *DeploymentCreate) { b.ID = "x" }, errs.BadCommand},
		"known ID":           {func(b *DeploymentCreate) { b.ID = nth(1) }, errs.Exists},
		"unknown source":     {func(b *DeploymentCreate) { b.Source.Type = "letter" }, errs.Invalid},
		"no digest":          {func(b *DeploymentCreate) { b.Source.Digest = "sha256:x" }, errs.Invalid},
		"negative size":      {func(b *DeploymentCreate) { b.Source.Size = -1 }, errs.Invalid},
		"long label":         {func(b *DeploymentCreate) { b.Source.Label = strings.Repeat("x", 201) }, errs.Invalid},
		"label that rings":   {func(b *DeploymentCreate) { b.Source.Label = "\x07" }, errs.Invalid},
		"no replicas":        {func(b *DeploymentCreate) { b.Spec.Replicas = 0 }, errs.Invalid},
		"unknown project":    {func(b *DeploymentCreate) { b.Project, b.Create = "none", false }, errs.NotFound},
		"impossible project": {func(b *DeploymentCreate) { b.Project = "../none" }, errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			b := creation(2, "blog")
			c.change(&b)
			m.refuse(c.code, b)
		})
	}
}

func TestSpecValidate(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Spec)
	}{
		{"replicas", func(s *Spec) { s.Replicas = 1001 }},
		{"health.path", func(s *Spec) { s.Health.Path = "x" }},
		{"health", func(s *Spec) { s.Health.Retries = 0 }},
		{"health", func(s *Spec) { s.Health.Retries = 1001 }},
		{"health", func(s *Spec) { s.Health.Interval = Longest + 1 }},
		{"health", func(s *Spec) { s.Health.Timeout = Longest + 1 }},
		{"health", func(s *Spec) { s.Health.StartPeriod = Longest + 1 }},
	} {
		s := DefaultSpec()
		c.change(&s)
		if err := errs.From(s.Validate()); err == nil || err.Field != c.field || err.Hint == "" {
			t.Errorf("%+v gives %v, want the field %s", s, err, c.field)
		}
	}
	if err := DefaultSpec().Validate(); err != nil {
		t.Error(err)
	}
}

func TestNewerDeploymentReplacesTheOneThatWaits(t *testing.T) {
	m := three(t)
	running := m.start(1, "blog")
	waiting, other := m.create(2, "blog"), m.create(3, "other")
	newest := m.create(4, "blog")
	d := m.deployment(waiting)
	if d.Status != StatusCancelled || d.Phase != PhaseFailed || d.FinishedAt == 0 || !strings.Contains(d.Events[len(d.Events)-1].Message, newest) {
		t.Errorf("the one that waited is %+v", d)
	}
	if got := ids(m.state().DeploymentsIn(StatusQueued), func(d *Deployment) string { return d.ID }); got != other+" "+newest {
		t.Errorf("the queue is %q", got)
	}
	if d := m.deployment(running); d.Status != StatusRunning || d.Phase != PhasePullingSource {
		t.Errorf("the running one is %s in %s", d.Status, d.Phase)
	}
}

func TestQueueOfAll(t *testing.T) {
	m := three(t)
	s := DefaultSettings()
	s.Queue = "all"
	m.ok(m.settings(s))
	for i := range maxQueued {
		m.create(i, "blog")
	}
	late := creation(maxQueued, "blog")
	m.refuse(errs.TooMany, late)
	m.create(maxQueued+1, "other")
	m.ok(DeploymentCancel{ID: nth(0)})
	m.ok(late)
	if n := count(m.state().DeploymentsIn(StatusQueued)); n != maxQueued+1 {
		t.Errorf("%d wait", n)
	}
	if d := first(t, m.state().DeploymentsIn(StatusQueued)); d.ID != nth(1) {
		t.Errorf("%s is first in the queue", d.ID)
	}
}

// Who is told to try again later must be able to do so under the same key.
func TestTooManyIsNotRemembered(t *testing.T) {
	m := three(t)
	s := DefaultSettings()
	s.Queue = "all"
	m.ok(m.settings(s))
	for i := range maxQueued {
		m.create(i, "blog")
	}
	cmd := m.stamp(creation(maxQueued, "blog"))
	cmd.Request = []byte("digest of the request")
	if r := m.send(cmd)[0]; errs.CodeOf(errOf(r)) != errs.TooMany {
		t.Fatalf("result is %+v", r)
	}
	m.ok(DeploymentCancel{ID: nth(0)})
	if r := m.send(cmd)[0]; r.Err != nil || r.Replayed {
		t.Errorf("later the result is %+v", r)
	}
	if r := m.send(cmd)[0]; r.Err != nil || !r.Replayed {
		t.Errorf("and then %+v", r)
	}
}

func TestReplicas(t *testing.T) {
	for text, want := range map[string]Replicas{`"all"`: ReplicasAll, "1": 1, "1000": 1000} {
		var r Replicas
		if err := r.UnmarshalJSON([]byte(text)); err != nil || r != want {
			t.Errorf("%s is read as %d, %v", text, r, err)
		}
		if b, err := r.MarshalJSON(); err != nil || string(b) != text {
			t.Errorf("%d is written as %s, %v", r, b, err)
		}
	}
	for _, text := range []string{"0", "-1", "1001", `"1"`, "some", ""} {
		var r Replicas
		if err := r.UnmarshalJSON([]byte(text)); errs.CodeOf(err) != errs.Invalid || r != 0 {
			t.Errorf("%s is read as %d, %v", text, r, err)
		}
	}
	if r, err := ParseReplicas("all"); err != nil || r != ReplicasAll {
		t.Error(fmt.Sprint(r, err))
	}
}
