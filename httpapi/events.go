package httpapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

// streamWrite is how long a reader of a stream may not take anything before it is let go.
const streamWrite = 10 * time.Second

// deploymentEvents streams one deployment, from its beginning unless the request says from where.
func (s *server) deploymentEvents(c *call) error {
	since, _, err := c.since()
	if err != nil {
		return err
	}
	if err := s.waitFor(c, since); err != nil {
		return err
	}
	if _, err := s.view(c); err != nil {
		return err
	}
	state := s.Replica.State() // it may be newer than what the token was found in
	id := c.Param("id")
	d := state.Deployment(id)
	if d == nil {
		return notFound("deployment", id)
	}
	return s.stream(c, &feed{since: since, only: id, project: d.Project, number: d.Number})
}

// allEvents streams all deployments, or those of a project, from now on unless the request says from where.
func (s *server) allEvents(c *call) error {
	since, given, err := c.since()
	if err != nil {
		return err
	}
	if err := s.waitFor(c, since); err != nil {
		return err
	}
	if _, err := s.view(c); err != nil {
		return err
	}
	state := s.Replica.State() // it may be newer than what the token was found in
	if !given {
		since = state.Index
	}
	return s.stream(c, &feed{since: since, project: c.query["project"]})
}

// stream sends what the feed finds, each time the state has changed, until the feed or the request ends or
// the token is revoked.
func (s *server) stream(c *call, f *feed) error {
	defer s.streams.Add(-1)
	if s.streams.Add(1) > int64(s.MaxStreams) {
		return errs.New(errs.TooMany, "%d streams of events are open on this node", s.MaxStreams).
			WithHint("close some, or ask another node")
	}
	h := c.Writer.Header()
	h.Set("Content-Type", api.ContentTypeEvent)
	h.Set("X-Accel-Buffering", "no")
	c.Writer.WriteHeader(http.StatusOK)
	out := &eventWriter{call: c, flush: http.NewResponseController(c.Writer)}
	defer c.extend(time.Time{}, time.Time{}) // the connection may serve other requests
	beat := time.NewTicker(s.Heartbeat)
	defer beat.Stop()
	err := out.comment("stream of events")
	for err == nil {
		changed := s.Replica.Changed()
		state := s.Replica.State()
		messages := f.next(state)
		if len(messages) > 0 {
			if !s.stillGood(c) {
				break
			}
			beat.Reset(s.Heartbeat)
		}
		if err = out.messages(messages); err != nil || f.ended {
			break
		}
		select {
		case <-changed:
		case <-beat.C:
			if !s.stillGood(c) {
				return nil
			}
			err = out.comment("still here")
		case <-c.Request.Context().Done():
			return nil
		}
	}
	return nil // the reader is gone or has all there is
}

// feed finds what has happened since an index. A message's place in the log is the index of the entry that caused it;
// of one entry's messages all are found or none.
type feed struct {
	since   uint64
	only    string // ID of the one deployment, "" for all
	project string // of all, only those of this project; "" for all
	number  uint64 // of the one deployment
	ended   bool   // there will be nothing more
}

// next gives what happened between since and the state, in the order of the log, and moves since on.
func (f *feed) next(s *fsm.State) []api.Event {
	var out []api.Event
	if f.only != "" {
		out = f.one(s)
	} else {
		for d := range s.DeploymentsSince(f.since) {
			if f.project == "" || d.Project == f.project {
				out = append(out, f.of(d)...)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b api.Event) int { return cmp.Compare(a.Index, b.Index) })
	f.since = max(f.since, s.Index)
	if len(out) > 0 {
		f.since = max(f.since, out[len(out)-1].Index)
	}
	return out
}

func (f *feed) one(s *fsm.State) []api.Event {
	d := s.Deployment(f.only)
	if d == nil {
		f.ended = true
		return []api.Event{{Type: api.EventEnd, Index: max(s.Index, f.since), Project: f.project, Deployment: f.only, Number: f.number}}
	}
	f.ended = d.Status.Terminal()
	if d.ModifyIndex > f.since {
		return f.of(d)
	}
	if f.ended { // the reader has all of it, but did not see that it was the end
		return []api.Event{endOf(d, f.since)}
	}
	return nil
}

// of gives what happened to a deployment that has changed since: its new lines, then where it is, then its end.
func (f *feed) of(d *fsm.Deployment) []api.Event {
	var out []api.Event
	for i := range d.Events {
		if line := &d.Events[i]; line.Index > f.since {
			e := event(api.EventLine, d, line.Index)
			e.Phase, e.PhaseProgress, e.PhaseMetadata, e.Attempt, e.Event = line.Phase, line.Progress, nil, line.Attempt, line
			out = append(out, e)
		}
	}
	finished := f.only != "" || len(out) > 0 // an end comes with a line; what changes later is no other end
	out = append(out, event(api.EventProgress, d, d.ModifyIndex))
	if d.Status.Terminal() && finished {
		out = append(out, endOf(d, d.ModifyIndex))
	}
	return out
}

func endOf(d *fsm.Deployment, index uint64) api.Event {
	e := event(api.EventEnd, d, index)
	e.Failure = d.Failure
	return e
}

func event(t api.EventType, d *fsm.Deployment, index uint64) api.Event {
	return api.Event{Type: t, Index: index, Project: d.Project, Deployment: d.ID, Number: d.Number, EventState: api.EventState{
		Status: d.Status, Phase: d.Phase, PhaseProgress: d.PhaseProgress, PhaseMetadata: d.PhaseMetadata, Attempt: d.Attempt}}
}

// eventWriter writes a stream; a reader that does not read is an error after a while.
type eventWriter struct {
	call  *call
	flush *http.ResponseController
	buf   []byte
}

// messages sends messages in the order of their index. Only the last one of an index carries it as its id: who was cut
// off between two of them gets both again rather than missing one.
func (w *eventWriter) messages(events []api.Event) error {
	if len(events) == 0 {
		return nil
	}
	for i := range events {
		e := &events[i]
		data, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode event: %w", err)
		}
		if i+1 == len(events) || events[i+1].Index != e.Index {
			w.buf = append(w.buf, "id: "...)
			w.buf = strconv.AppendUint(w.buf, e.Index, 10)
			w.buf = append(w.buf, '\n')
		}
		w.buf = append(w.buf, "event: "...)
		w.buf = append(w.buf, e.Type...)
		w.buf = append(w.buf, "\ndata: "...)
		w.buf = append(w.buf, data...)
		w.buf = append(w.buf, "\n\n"...)
	}
	return w.send()
}

func (w *eventWriter) comment(text string) error {
	w.buf = append(append(append(w.buf, ": "...), text...), "\n\n"...)
	return w.send()
}

func (w *eventWriter) send() error {
	w.call.extend(time.Time{}, time.Now().Add(streamWrite))
	_, err := w.call.Writer.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if err := w.flush.Flush(); err != nil {
		return fmt.Errorf("flush events: %w", err)
	}
	return nil
}
