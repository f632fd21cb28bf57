package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kontiki/fsm"
)

// Whatever somebody takes away of what a node serves is back after the leader's next full pass, by a committed repair.
func TestWhatIsTakenAwayComesBack(t *testing.T) {
	cfg, made := initNode(t, "n1")
	cfg.FullPass = 100 * time.Millisecond
	n1 := start(t, cfg)
	c := dial(t, made.Token, n1)
	n2 := join(t, c, n1, "n2")
	await(t, "n2 to be ready", func() error {
		if n := n1.fsm.State().Node("n2"); n == nil || n.State != fsm.NodeReady {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	d := deploy(t, c, "hello", "first")
	for _, n := range []*started{n1, n2} {
		site := filepath.Join(n.cfg.DataDir, "static", "hello")
		await(t, "current to follow", func() error { _, err := os.Stat(filepath.Join(site, "current", "index.html")); return err })
		for _, gone := range []string{filepath.Join(site, "releases", d.ID), filepath.Join(site, "current"), filepath.Join(n.cfg.DataDir, "www", "hello")} {
			if err := os.RemoveAll(gone); err != nil {
				t.Fatal(err)
			}
			await(t, gone+" to be back", func() error {
				_, err := os.Stat(filepath.Join(n.cfg.DataDir, "www", "hello", "index.html"))
				_, missing := os.Stat(gone)
				return errors.Join(err, missing)
			})
			if body, err := browse(n, "hello.kontiki.localhost", "/about.html"); err != nil || body != "about.html first" {
				t.Errorf("it serves %q, %v", body, err)
			}
		}
	}
	mended := map[string]bool{}
	for r := range n1.fsm.State().Repairs() {
		if r.Kind == fsm.RepairPlace && r.Deployment == d.ID {
			mended[r.Node] = true
		}
	}
	if !mended["n1"] || !mended["n2"] {
		t.Errorf("repairs were ordered of %v", mended)
	}
}
