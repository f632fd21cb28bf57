package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/httpapi"
)

// told keeps what a stream tells.
type told struct{ events []api.Event }

func (s *told) lines() []string {
	var out []string
	for _, e := range s.events {
		if e.Type == api.EventLine {
			out = append(out, fmt.Sprintf("%d %s", e.Event.Index, e.Event.Message))
		}
	}
	return out
}

func timeline(d *fsm.Deployment) []string {
	var out []string
	for _, e := range d.Events {
		out = append(out, fmt.Sprintf("%d %s", e.Index, e.Message))
	}
	return out
}

// A deployment is followed live from its first line to its end.
func TestFollow(t *testing.T) {
	g := newGroup(t, 2, nil)
	c := g.client(t, adminSecret, 1)
	d := deploy(t, c, "hello", "x")
	g.start(t, d.ID)
	next := 0
	var s told
	err := c.Follow(t.Context(), d.ID, 0, func(e api.Event) error {
		s.events = append(s.events, e)
		if e.Type == api.EventProgress && next < len(working) { // the next step is done when this one was told
			g.report(t, d.ID, working[next])
			next++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done := g.replicas[0].State().Deployment(d.ID)
	if got, want := s.lines(), timeline(done); !slices.Equal(got, want) {
		t.Errorf("told %q, happened %q", got, want)
	}
	end := s.events[len(s.events)-1]
	if end.Type != api.EventEnd || end.Status != fsm.StatusActive || end.PhaseProgress != 100 || end.Project != "hello" || end.Index != done.ModifyIndex {
		t.Errorf("end %+v", end)
	}
	if !slices.IsSortedFunc(s.events, func(a, b api.Event) int { return int(a.Index) - int(b.Index) }) {
		t.Error("the stream goes back")
	}
	// Who comes later is told the same.
	var later told
	if err := c.Follow(t.Context(), d.ID, 0, func(e api.Event) error { later.events = append(later.events, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(later.lines(), s.lines()) {
		t.Errorf("later %q", later.lines())
	}
	// Who has it all is told the end only.
	var last told
	if err := c.Follow(t.Context(), d.ID, done.ModifyIndex, func(e api.Event) error { last.events = append(last.events, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(last.events) != 1 || last.events[0].Type != api.EventEnd {
		t.Errorf("after all: %+v", last.events)
	}
}

// The node that streams dies in the middle; the client goes on through another one without a gap or a repetition.
func TestFollowResumesThroughAnotherNode(t *testing.T) {
	g := newGroup(t, 2, nil)
	c := g.client(t, adminSecret, 0, 1)
	d := deploy(t, c, "hello", "x")
	g.start(t, d.ID)
	next, ends := 0, 0
	var s told
	err := c.Follow(t.Context(), d.ID, 0, func(e api.Event) error {
		s.events = append(s.events, e)
		if e.Type == api.EventEnd {
			ends++
		}
		if e.Type == api.EventProgress && next < len(working) {
			if next == 3 {
				g.replicas[0].http.CloseClientConnections()
				g.replicas[0].http.Config.SetKeepAlivesEnabled(false)
				_ = g.replicas[0].http.Listener.Close()
			}
			g.report(t, d.ID, working[next])
			next++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.lines(), timeline(g.replicas[1].State().Deployment(d.ID)); !slices.Equal(got, want) || ends != 1 {
		t.Errorf("told %q, happened %q, %d ends", got, want, ends)
	}
}

func TestFollowAFailureAndADeletion(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	d := deploy(t, c, "hello", "x")
	g.start(t, d.ID)
	g.must(t, fsm.DeploymentFail{ID: d.ID, Phase: fsm.PhasePullingSource, Failure: fsm.Failure{Code: errs.BlobMissing, Message: "nobody has it"}})
	var end api.Event
	if err := c.Follow(t.Context(), d.ID, 0, func(e api.Event) error { end = e; return nil }); err != nil {
		t.Fatal(err)
	}
	if end.Status != fsm.StatusFailed || end.Failure == nil || end.Failure.Message != "nobody has it" {
		t.Errorf("end %+v", end)
	}
	d = deploy(t, c, "hello", "y")
	err := c.Follow(t.Context(), d.ID, 0, func(e api.Event) error {
		if e.Type == api.EventProgress {
			g.must(t, fsm.ProjectDelete{Name: "hello"})
		}
		end = e
		return nil
	})
	if err != nil || end.Type != api.EventEnd || end.Status != "" || end.Deployment != d.ID {
		t.Errorf("%v, end %+v", err, end)
	}
}

func TestFollowEndsWithTheCallersError(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	d := deploy(t, c, "hello", "x")
	mine := errors.New("enough")
	if err := c.Follow(t.Context(), d.ID, 0, func(api.Event) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("%v", err)
	}
	wantCode(t, c.Follow(t.Context(), "x", 0, func(api.Event) error { return nil }), errs.NotFound)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Follow(ctx, d.ID, 0, func(api.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// The stream of all deployments tells what is new, of one project when asked.
func TestEvents(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	old := deploy(t, c, "hello", "old")
	since := c.Index()
	a := deploy(t, c, "hello", "a")
	b := deploy(t, c, "other", "b")
	g.bring(t, a.ID)
	enough := errors.New("enough")
	collect := func(project string, since uint64, stop func(api.Event) bool) *told {
		var s told
		err := c.Events(t.Context(), project, since, func(e api.Event) error {
			if s.events = append(s.events, e); stop(e) {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
		return &s
	}
	isEnd := func(e api.Event) bool { return e.Type == api.EventEnd && e.Deployment == a.ID }
	s := collect("", since, isEnd)
	var of []string
	for _, e := range s.events {
		of = append(of, e.Deployment)
	}
	if !slices.Contains(of, a.ID) || !slices.Contains(of, b.ID) {
		t.Errorf("told of %v", of)
	}
	for _, e := range collect("hello", since, isEnd).events {
		if e.Project != "hello" || e.Deployment != a.ID && e.Deployment != old.ID {
			t.Errorf("told of %s", e.Project)
		}
	}
	// Without a place to begin it tells what happens from now on.
	res := g.ask(t, "GET", "/api/events", "")
	lines := bufio.NewScanner(res.Body)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), ":") {
		t.Fatalf("the stream begins with %q", lines.Text())
	}
	if _, err := c.Cancel(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data:") {
		continue
	}
	if !strings.Contains(lines.Text(), b.ID) || !strings.Contains(lines.Text(), "cancelled by admin") {
		t.Errorf("told %q", lines.Text())
	}
}

func TestStreamsShowThatTheyLive(t *testing.T) {
	g := newGroup(t, 1, func(d *httpapi.Deps) { d.Heartbeat, d.MaxStreams = time.Millisecond, 1 })
	res := g.ask(t, "GET", "/api/events", "")
	lines := bufio.NewScanner(res.Body)
	for beats := 0; beats < 2 && lines.Scan(); {
		if lines.Text() == ": still here" {
			beats++
		}
	}
	if err := lines.Err(); err != nil || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v, %v", err, res.Header)
	}
	second := g.ask(t, "GET", "/api/events", "")
	if e := refusal(t, second); e.Code != errs.TooMany || second.Header.Get("Retry-After") == "" {
		t.Errorf("%+v", e)
	}
}

// A stream ends when its token is revoked.
func TestRevokedTokenEndsItsStreams(t *testing.T) {
	g := newGroup(t, 1, func(d *httpapi.Deps) { d.Heartbeat = time.Millisecond })
	c := g.client(t, adminSecret, 0)
	made, err := c.CreateToken(t.Context(), api.TokenCreate{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	res := g.ask(t, "GET", "/api/events", "", "Authorization", "Bearer "+made.Secret)
	if err := c.RevokeToken(t.Context(), made.Token.ID); err != nil {
		t.Fatal(err)
	}
	read(t, res) // ends
}

// Nothing that happens after a token is revoked is told to it, not even before the next heartbeat.
func TestRevokedTokenIsToldNothing(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	made, err := c.CreateToken(t.Context(), api.TokenCreate{Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	res := g.ask(t, "GET", "/api/events", "", "Authorization", "Bearer "+made.Secret)
	if err := c.RevokeToken(t.Context(), made.Token.ID); err != nil {
		t.Fatal(err)
	}
	deploy(t, c, "hello", "x")
	if text := read(t, res); strings.Contains(text, "hello") {
		t.Errorf("told %q", text)
	}
}

// A connection that breaks between two messages of one entry loses neither.
func TestResumeInsideAnEntry(t *testing.T) {
	g := newGroup(t, 1, nil)
	c := g.client(t, adminSecret, 0)
	d := deploy(t, c, "hello", "x")
	g.bring(t, d.ID)
	text := read(t, g.ask(t, "GET", "/api/deployments/"+d.ID+"/events", ""))
	messages := strings.Split(strings.TrimSpace(text), "\n\n")
	ids := 0
	var index string
	for _, m := range messages {
		if id, ok := strings.CutPrefix(m, "id: "); ok {
			ids++
			index, _, _ = strings.Cut(id, "\n")
		}
	}
	if ids == 0 || ids >= len(messages)-1 {
		t.Errorf("%d of %d messages have an id: one for each entry is right", ids, len(messages))
	}
	if last := messages[len(messages)-1]; !strings.HasPrefix(last, "id: "+index) || !strings.Contains(last, "event: end") {
		t.Errorf("the last message is %q", last)
	}
	rest := read(t, g.ask(t, "GET", "/api/deployments/"+d.ID+"/events?since=5", ""))
	for _, m := range strings.Split(strings.TrimSpace(rest), "\n\n") {
		if id, ok := strings.CutPrefix(m, "id: "); ok && strings.HasPrefix(id, "4\n") {
			t.Errorf("resumed after 5, told %q", m)
		}
	}
}
