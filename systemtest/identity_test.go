package systemtest

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"kontiki/errs"
)

// refused runs the binary for a node, expects it to end by itself with the exit code, and gives what it says.
func (n *node) refused(t *testing.T, code int, args ...string) string {
	t.Helper()
	cmd := n.command(t, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() }) // it may have ended meanwhile
	defer limit.Stop()
	_ = cmd.Wait() // the exit code says it
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("kontiki %s ends with %s, should be exit code %d:\n%s", strings.Join(args, " "), cmd.ProcessState, code, out.String())
	}
	return out.String()
}

func (n *node) serverArgs() []string {
	return []string{"server", "--json", "--data", n.data(), "--engine", "embedded"}
}

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

func TestAWipedNodeIsRefusedUnderItsOldName(t *testing.T) {
	c := startCluster(t, 3, options{})
	n := c.nodes[2]
	n.stop(t)
	if err := os.RemoveAll(n.data()); err != nil {
		t.Fatal(err)
	}
	wantText(t, n.refused(t, 2, n.serverArgs()...), string(errs.NotFound), "kontiki join")

	token, err := c.client(t).CreateJoinToken(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	n.env = []string{"KONTIKI_JOIN_TOKEN=" + token.Token}
	join := append([]string{"join", "--json", "http://" + c.nodes[0].api}, n.flags()...)
	wantText(t, n.refused(t, 1, join...), string(errs.IdentityMismatch), "kontiki peers remove n3")

	// What the message says to do works: the old name is given up and the machine joins under a new one.
	if err := c.client(t).RemovePeer(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	n.name = "n4"
	c.join(t, n)
	n.start(t)
	c.awaitReady(t, n)
	c.awaitMembers(t)
	c.awaitEqual(t)
}

func TestARemovedNodeStaysOutside(t *testing.T) {
	c := startCluster(t, 3, options{})
	n := c.nodes[2]
	if err := c.client(t, c.nodes[0]).RemovePeer(t.Context(), n.name); err != nil {
		t.Fatal(err)
	}
	if s := n.awaitEnd(t, 20*time.Second); s.ExitCode() != 5 {
		t.Errorf("the removed node ended with %s", s)
	}
	wantText(t, n.lastLines(20), "was removed from this cluster", "join under a new ID")
	wantText(t, n.refused(t, 5, n.serverArgs()...), string(errs.RemovedPeer), "under a new ID")
	if err := os.RemoveAll(n.data()); err != nil {
		t.Fatal(err)
	}
	token, err := c.client(t, c.nodes[0]).CreateJoinToken(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	n.env = []string{"KONTIKI_JOIN_TOKEN=" + token.Token}
	join := append([]string{"join", "--json", "http://" + c.nodes[0].api}, n.flags()...)
	wantText(t, n.refused(t, 5, join...), string(errs.RemovedPeer), "under a new ID")
	c.nodes = c.nodes[:2]
	c.awaitMembers(t)
	c.awaitEqual(t)
}

func TestADamagedLogIsRefused(t *testing.T) {
	c := startCluster(t, 3, options{})
	n := c.nodes[2]
	n.stop(t)
	path := n.data("raft", "raft.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func() []byte{
		"truncated": func() []byte { return whole[:len(whole)/2] },
		"emptied":   func() []byte { return nil },
		"flipped": func() []byte {
			// One bit of every copy of a text that is stored: some copies are on pages nothing refers to any more.
			return bytes.ReplaceAll(whole, []byte(n.cluster), []byte("9"+n.cluster[1:]))
		},
	}
	for name, damaged := range damages {
		t.Run(name, func(t *testing.T) {
			b := damaged()
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			wantText(t, n.refused(t, 1, n.serverArgs()...), string(errs.StateCorrupt), path, "kontiki peers remove")
			if after, err := os.ReadFile(path); err != nil || len(after) != len(b) {
				t.Errorf("what was damaged has been replaced: %d bytes, %v", len(after), err)
			}
		})
	}
	t.Run("removed", func(t *testing.T) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantText(t, n.refused(t, 1, n.serverArgs()...), string(errs.StateCorrupt))
	})
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	c.awaitReady(t, n)
	c.awaitMembers(t)
	c.awaitEqual(t)
}

// An init that is killed leaves no node, and the next one says what to do about what it left.
func TestAnInitThatIsCutOff(t *testing.T) {
	for _, point := range []string{"pki.save.before", "pki.save.after"} {
		t.Run(point, func(t *testing.T) {
			n := (&cluster{}).addNode(t, t.TempDir(), "n1")
			n.env = n.faultEnv(t, map[string]string{point: "kill"})
			n.arm(t, point)
			makeCluster := append([]string{"init", "--no-context"}, n.flags()...)
			n.refused(t, -1, makeCluster...) // it was killed
			n.awaitFired(t, point)
			wantText(t, n.refused(t, 2, n.serverArgs()...), string(errs.NotFound))
			wantText(t, n.refused(t, 2, makeCluster...), "is not empty", "remove it and try again")
			if err := os.RemoveAll(n.data()); err != nil {
				t.Fatal(err)
			}
			n.run(t, makeCluster...)
			wantText(t, n.refused(t, 2, makeCluster...), "is not empty", "kontiki server --data "+n.data())
		})
	}
}
