package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLogsInOurWay(t *testing.T) {
	var out bytes.Buffer
	l := raftLogger(slog.New(slog.NewTextHandler(&out, nil)))
	l.Error("failed to heartbeat to", "peer", "n2", "servers", hclog.Fmt("%d of %d", 1, 3))
	l.Warn("heartbeat timeout reached")
	l.Info("entering follower state")
	for _, want := range []string{`level=WARN msg=raft event="failed to heartbeat to" peer=n2 servers="1 of 3"`, "level=INFO msg=raft"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "follower state") {
		t.Error("what Raft finds interesting is for debugging")
	}
}
