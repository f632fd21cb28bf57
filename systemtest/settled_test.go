package systemtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/fsm"
)

// deployments gives all deployments, brief, by ID.
func deployments(t testing.TB, c *client.Client) (map[string]fsm.Deployment, error) {
	t.Helper()
	found := map[string]fsm.Deployment{}
	for d, err := range client.All(func(l client.List) (api.Page[fsm.Deployment], error) {
		return c.Deployments(t.Context(), client.Filter{List: l})
	}) {
		if err != nil {
			return nil, err
		}
		found[d.ID] = d
	}
	return found, nil
}

// awaitSettled waits until nothing is left to do at once: every node is there, every deployment and repair has ended, every
// project has the one active deployment it should have (by its ID), each node's disk has what the state says and nothing
// else, the active release is served by every node, and all states are equal.
func (c *cluster) awaitSettled(t testing.TB, active map[string]string) {
	t.Helper()
	all := c.client(t)
	await(t, "the cluster has settled", 60*time.Second, func() error { return c.settled(t, all, active) })
	c.awaitEqual(t)
}

func (c *cluster) settled(t testing.TB, all *client.Client, active map[string]string) error {
	s, err := all.Status(t.Context())
	if err != nil {
		return err
	}
	if err := settledPeers(s, len(c.nodes)); err != nil {
		return err
	}
	pending, err := all.Repairs(t.Context(), client.RepairFilter{State: fsm.StepPending})
	if err != nil {
		return err
	}
	for _, r := range pending.Items {
		if r.Kind != fsm.RepairDropBlob { // which waits on purpose
			return fmt.Errorf("a repair is pending: %+v", r)
		}
	}
	ds, err := deployments(t, all)
	if err != nil {
		return err
	}
	if err := onlyActive(ds, active); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := n.tidy(ds, active); err != nil {
			return fmt.Errorf("node %s: %w", n.name, err)
		}
		for project, id := range active {
			if d := ds[id]; !d.Serves(n.name) {
				return fmt.Errorf("node %s does not serve deployment %s of %s", n.name, id, project)
			}
		}
	}
	return nil
}

// onlyActive reports whether these are the active deployments and all others have ended.
func onlyActive(ds map[string]fsm.Deployment, active map[string]string) error {
	for id, d := range ds {
		switch {
		case !d.Status.Terminal() && d.Status != fsm.StatusActive:
			return fmt.Errorf("deployment %s is %s in %s", id, d.Status, d.Phase)
		case d.Status == fsm.StatusActive && active[d.Project] != id:
			return fmt.Errorf("deployment %s of %s is active, should be %q", id, d.Project, active[d.Project])
		}
	}
	for project, id := range active {
		if ds[id].Status != fsm.StatusActive {
			return fmt.Errorf("deployment %s of %s is %q", id, project, ds[id].Status)
		}
	}
	return nil
}

// tidy reports whether the node's disk has what the deployments say: the releases that serve and no other, no
// left-overs, links that name the active one, no blob that no deployment ever had.
func (n *node) tidy(ds map[string]fsm.Deployment, active map[string]string) error {
	releases, blobs := map[string][]string{}, map[string]bool{}
	for id, d := range ds {
		if d.Serves(n.name) {
			releases[d.Project] = append(releases[d.Project], id)
		}
		blobs[d.Source.Digest] = true
		if d.Artifact != nil {
			blobs[d.Artifact.Content], blobs[d.Artifact.Manifest] = true, true
		}
	}
	if err := n.sameReleases(releases); err != nil {
		return err
	}
	for project, id := range active {
		if err := n.linked(project, id); err != nil {
			return err
		}
	}
	return n.sameBlobs(blobs)
}

// canaries are files of somebody else, beside ours; they must never change.
func (n *node) canaries(project string) []string {
	return []string{
		n.data("static", project, "notes.txt"),
		n.data("static", project, "releases", "by-hand", "index.html"),
		n.data("static", "by_hand", "releases", "1", "index.html"),
		n.data("www", "by_hand.html"),
		n.data("blobs", "sha256", "notes.txt"),
	}
}

const canary = "not Kontiki's"

// plant puts the canaries there.
func (n *node) plant(t testing.TB, project string) {
	t.Helper()
	for _, path := range n.canaries(project) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(canary), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) untouched(t testing.TB, project string) {
	t.Helper()
	for _, path := range n.canaries(project) {
		if b, err := os.ReadFile(path); err != nil || string(b) != canary {
			t.Errorf("somebody else's file on node %s was touched: %q, %v", n.name, b, err)
		}
	}
}

func (n *node) sameReleases(want map[string][]string) error {
	projects, err := os.ReadDir(n.data("static"))
	if err != nil {
		return err
	}
	for _, p := range projects {
		if p.Name() == "by_hand" {
			continue
		}
		if len(want[p.Name()]) == 0 {
			return fmt.Errorf("there is %s, and no deployment for it", n.data("static", p.Name()))
		}
		entries, err := os.ReadDir(n.data("static", p.Name(), "releases"))
		if err != nil {
			return err
		}
		var there []string
		for _, e := range entries {
			if e.Name() != "by-hand" {
				there = append(there, e.Name())
			}
		}
		slices.Sort(want[p.Name()])
		if !slices.Equal(there, want[p.Name()]) {
			return fmt.Errorf("releases of %s are %v, should be %v", p.Name(), there, want[p.Name()])
		}
		if err := noTemporary(n.data("static", p.Name())); err != nil {
			return err
		}
		delete(want, p.Name())
	}
	for project, ids := range want {
		return fmt.Errorf("releases %v of %s are missing", ids, project)
	}
	return errors.Join(noTemporary(n.data("static")), noTemporary(n.data("www")))
}

func noTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			return fmt.Errorf("left over: %s", filepath.Join(dir, e.Name()))
		}
	}
	return err
}

func (n *node) linked(project, id string) error {
	for link, want := range map[string]string{
		n.data("static", project, "current"): "releases/" + id,
		n.data("www", project):               "../static/" + project + "/current",
	} {
		if got, err := os.Readlink(link); err != nil || got != want {
			return fmt.Errorf("%s leads to %q, should be %q (%v)", link, got, want, err)
		}
	}
	return nil
}

func (n *node) sameBlobs(known map[string]bool) error {
	return filepath.WalkDir(n.data("blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "notes.txt" {
			return err
		}
		if !known["sha256:"+d.Name()] {
			return fmt.Errorf("left over: %s", path)
		}
		return nil
	})
}

// checkHistory fails the test unless the deployment went forward through the phases, each entered once.
func checkHistory(t testing.TB, d fsm.Deployment) {
	t.Helper()
	entered, last := map[string]int{}, 0
	for _, e := range d.Events {
		if strings.HasPrefix(e.Message, "entered ") {
			entered[e.Message]++
		}
		if order := e.Phase.Order(); e.Phase != fsm.PhaseFailed && order < last {
			t.Errorf("deployment %s went back from phase %d to %s", d.ID, last, e.Phase)
		} else {
			last = order
		}
	}
	for message, times := range entered {
		if times != 1 {
			t.Errorf("deployment %s %s %d times", d.ID, message, times)
		}
	}
	if d.Status == fsm.StatusActive && len(entered) != 6 {
		t.Errorf("deployment %s is active and entered only %v", d.ID, entered)
	}
}
