package cluster

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"kontiki/errs"
	"kontiki/fsm"
)

func TestHandlerRefuses(t *testing.T) {
	g := newGroup(t, true, nil)
	g.form(2)
	leader, follower := g.leader(), g.follower()
	good := fsm.EncodeEntry([][]byte{command("x").Encode()})
	large := fsm.EncodeEntry([][]byte{make([]byte, maxGroupBytes+1)})
	for name, c := range map[string]struct {
		to           *node
		method, path string
		body         []byte
		code         errs.Code
	}{
		"no entry":              {leader, "POST", pathPropose, []byte("rubbish"), errs.BadCommand},
		"a command too large":   {leader, "POST", pathPropose, large, errs.TooLarge},
		"a body too large":      {leader, "POST", pathPropose, make([]byte, 3*maxGroupBytes), errs.TooLarge},
		"not the leader":        {follower, "POST", pathPropose, good, errs.NotLeader},
		"a read of no leader":   {follower, "GET", pathReadIndex, nil, errs.NotLeader},
		"a check of no leader":  {follower, "GET", pathRemoval + "?id=n1", nil, errs.NotLeader},
		"a check of a stranger": {leader, "GET", pathRemoval + "?id=n9", nil, errs.NotFound},
	} {
		w := httptest.NewRecorder()
		c.to.Handler().ServeHTTP(w, httptest.NewRequest(c.method, c.path, bytes.NewReader(c.body)))
		var a answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || a.Error == nil || a.Error.Code != c.code || w.Code != errs.Status(c.code) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
			continue
		}
		if c.to == follower && (a.Leader == nil || a.Leader.ID != leader.id) {
			t.Errorf("%s: it does not say who leads: %s", name, w.Body)
		}
	}
	w := httptest.NewRecorder()
	follower.Handler().ServeHTTP(w, httptest.NewRequest("GET", pathStatus, nil))
	var s Status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != http.StatusOK || s.NodeID != follower.id || s.ClusterID != "c1" || s.Leader != leader.id {
		t.Errorf("%s", w.Body)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		code errs.Code
	}{
		"no ID":      {Config{Dir: "x", Machine: newRecord(), Network: &MemoryNode{}}, errs.Invalid},
		"no store":   {Config{NodeID: "n1", Machine: newRecord(), Network: &MemoryNode{}}, errs.Invalid},
		"no machine": {Config{NodeID: "n1", Dir: "x", Network: &MemoryNode{}}, errs.Internal},
		"bad timing": {Config{NodeID: "n1", Memory: NewMemoryStore(), Machine: newRecord(), Network: NewMemoryNetwork().Node("n1"),
			Timing: Timing{Heartbeat: 1}}, errs.Invalid},
	} {
		if _, err := Open(c.cfg); errs.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
