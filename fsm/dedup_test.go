package fsm

import (
	"fmt"
	"testing"

	"kontiki/errs"
)

func keyed(c Command, key, request string) Command {
	c.ID, c.Request = key, []byte(request)
	return c
}

func TestSameIDSameResult(t *testing.T) {
	m := three(t)
	for _, request := range []string{"", "a request"} {
		cmd := keyed(m.stamp(creation(len(request), "blog")), "key "+request, request)
		one := m.send(cmd)[0]
		before := m.hash()
		again := m.send(cmd)[0]
		if one.Err != nil || one.Replayed || !again.Replayed || again.Index != one.Index || string(again.Body) != string(one.Body) || len(one.Body) == 0 {
			t.Errorf("first %+v, then %+v", one, again)
		}
		if m.hash() != before {
			t.Error("the second time changed the state")
		}
	}
}

func TestRefusalsAreRemembered(t *testing.T) {
	m := three(t)
	cmd := keyed(m.stamp(ProjectUpdate{Name: "later"}), "key", "request")
	one := m.send(cmd)[0]
	m.ok(ProjectCreate{Name: "later"})
	again := m.send(cmd)[0]
	if errs.CodeOf(errOf(one)) != errs.NotFound || errs.CodeOf(errOf(again)) != errs.NotFound || !again.Replayed || again.Index != one.Index {
		t.Errorf("first %+v, then %+v", one, again)
	}
}

func TestIdempotencyReuse(t *testing.T) {
	m := three(t)
	m.send(keyed(m.stamp(ProjectCreate{Name: "blog"}), "key", "one"))
	for _, other := range []string{"two", ""} {
		r := m.send(keyed(m.stamp(ProjectCreate{Name: "shop"}), "key", other))[0]
		if errs.CodeOf(errOf(r)) != errs.IdempotencyReuse || r.Err.Hint == "" {
			t.Errorf("result is %+v", r)
		}
	}
	if m.state().Project("shop") != nil {
		t.Error("the other request took effect")
	}
}

func TestIdempotencyWithinOneEntry(t *testing.T) {
	m := three(t)
	a := keyed(m.stamp(creation(1, "blog")), "key", "one")
	b := keyed(m.stamp(creation(2, "blog")), "key", "two")
	r := m.send(a, a, b, a)
	if r[0].Err != nil || r[0].Replayed || !r[1].Replayed || string(r[1].Body) != string(r[0].Body) || !r[3].Replayed {
		t.Errorf("results are %+v", r)
	}
	if errs.CodeOf(errOf(r[2])) != errs.IdempotencyReuse {
		t.Errorf("the other request gives %+v", r[2])
	}
	if n := count(m.state().Deployments("")); n != 1 {
		t.Errorf("%d deployments", n)
	}
}

func TestIDsMustBeThere(t *testing.T) {
	m := three(t)
	for _, id := range []string{"", fmt.Sprintf("%0129d", 1)} {
		if r := m.send(keyed(m.stamp(Checkpoint{}), id, ""))[0]; errs.CodeOf(errOf(r)) != errs.BadCommand {
			t.Errorf("an ID of %d bytes gives %+v", len(id), r)
		}
	}
	if r := m.send(keyed(m.stamp(Checkpoint{}), fmt.Sprintf("%0128d", 1), ""))[0]; r.Err != nil {
		t.Error(r.Err)
	}
}

// A client's key is remembered for a day of log time, however many commands follow, and forgotten some time after.
func TestClientResultsAreKeptForADay(t *testing.T) {
	m := three(t)
	at := func(key string, at Time) Result {
		c := keyed(m.stamp(Checkpoint{}), key, "request")
		c.Time = at
		return m.send(c)[0]
	}
	start := m.lastTime()
	at("the first", start)
	for i := range 3 * ringChunk {
		at(fmt.Sprint("key ", i), start+1)
	}
	for passed := Time(logStep); passed <= keepClientMillis; passed += logStep {
		at(fmt.Sprint("after ", passed), start+passed)
	}
	if r := at("the first", start+keepClientMillis); !r.Replayed {
		t.Errorf("within the day: %+v", r)
	}
	at("the next day", start+keepClientMillis+10)
	if r := at("the first", start); r.Replayed {
		t.Errorf("after it: %+v", r)
	}
}

// One command of a clock that is far ahead ends nobody's day; and when such a clock has brought the log's time ahead,
// keys that come after it are kept as long as any.
func TestClockAheadDoesNotShortenRetention(t *testing.T) {
	m := three(t)
	n := 0
	at := func(key string, at Time) Result {
		c := keyed(m.stamp(Checkpoint{}), key, "request")
		c.Time = at
		return m.send(c)[0]
	}
	fill := func(when Time) {
		for range 2 * ringChunk {
			n++
			at(fmt.Sprint("filler ", n), when)
		}
	}
	start := m.lastTime()
	at("before", start)
	fill(start)
	at("of a clock a year ahead", start+365*keepClientMillis)
	if r := at("before", start); !r.Replayed {
		t.Error("one command ended the day")
	}
	for range 2 * keepClientMillis / logStep {
		n++
		at(fmt.Sprint("ahead ", n), start+2*keepClientMillis)
	}
	if r := at("before", start); r.Replayed {
		t.Error("a clock that stays ahead does not move the log's time: the test shows nothing")
	}
	at("after", start+1)
	fill(start + 2)
	if r := at("after", start+3); !r.Replayed {
		t.Error("keys of those who are right are forgotten at once")
	}
}

// Nodes' many commands do not push out the clients' keys.
func TestNodeResultsDoNotPushOutClients(t *testing.T) {
	m := newMemory()
	m.remember(remembered{Key: keyOf("client"), Request: []byte("r"), Time: 1})
	for i := range keepNodeMost + 2*ringChunk {
		m.remember(remembered{Key: keyOf(fmt.Sprint("node ", i)), Time: 1})
		m.forget(1)
	}
	if _, ok := m.recall(keyOf("client"), Command{Request: []byte("r")}); !ok {
		t.Error("the client's result is forgotten")
	}
	if _, ok := m.recall(keyOf("node 0"), Command{}); ok {
		t.Error("the oldest of the nodes' results is kept")
	}
	if _, ok := m.recall(keyOf(fmt.Sprint("node ", 2*ringChunk)), Command{}); !ok {
		t.Errorf("a younger one of %d is not", m.node.len())
	}
	if len(m.seen) != m.node.len()+m.client.len() {
		t.Errorf("%d keys for %d results", len(m.seen), m.node.len()+m.client.len())
	}
}

func TestClientResultsAreBoundedInNumber(t *testing.T) {
	m := newMemory()
	for i := range keepClientMost + 2*ringChunk {
		var k dedupKey
		k[0], k[1], k[2] = byte(i), byte(i>>8), byte(i>>16)
		m.remember(remembered{Key: k, Request: []byte("r"), Time: 1})
		m.forget(1)
	}
	if n := m.client.len(); n < keepClientMost || n > keepClientMost+ringChunk || len(m.seen) != n {
		t.Errorf("%d results, %d keys", n, len(m.seen))
	}
}
