package ingress

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"kontiki/errs"
	"kontiki/fault"
	"kontiki/fsm"
)

func (n *node) prober() *Prober { return n.Prober(n.users.Listener.Addr().String()) }

func TestProbeAsksThisNodeOnly(t *testing.T) {
	w := newWorld(t, "n1", "n2")
	id := w.deploy("shop", fsm.PhaseHealthCheck, "n1", "n2")
	n := w.nodes("n1", "n2")
	n["n2"].site.add(id)
	d := w.fsm.State().Deployment(id)
	p := n["n1"].prober()
	t.Cleanup(p.client.CloseIdleConnections)
	err := p.Probe(t.Context(), d)
	if errs.CodeOf(err) != errs.Unhealthy || !strings.Contains(err.Error(), "503") {
		t.Errorf("a release that is only elsewhere: %v", err)
	}
	if n["n2"].site.count() != 0 {
		t.Error("another node was asked")
	}
	n["n1"].site.add(id)
	if err := p.Probe(t.Context(), d); err != nil {
		t.Error(err)
	}
	if r := n["n1"].site.last(); r.Host != strings.ToLower(id)+"--shop.kontiki.localhost" || r.Header.Get(headerProbe) != "" {
		t.Errorf("the instance was asked %q with %v", r.Host, r.Header)
	}
}

func TestProbeSaysWhatWasAnswered(t *testing.T) {
	w := newWorld(t, "n1")
	id := w.deploy("shop", fsm.PhaseHealthCheck, "n1")
	n := w.nodes("n1")["n1"]
	n.site.add(id)
	p := n.prober()
	t.Cleanup(p.client.CloseIdleConnections)
	hang := func(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() }
	for want, handle := range map[string]func(http.ResponseWriter, *http.Request, string){
		"no database": func(w http.ResponseWriter, _ *http.Request, _ string) {
			http.Error(w, "no database", http.StatusInternalServerError)
		},
		`by release "other"`: func(w http.ResponseWriter, _ *http.Request, _ string) { w.Header().Set(HeaderRelease, "other") },
		`by node "n7"`:       func(w http.ResponseWriter, _ *http.Request, _ string) { w.Header().Set(HeaderNode, "n7") },
		"no answer after":    hang,
		"/health?deep=1":     hang,
	} {
		n.site.mu.Lock()
		n.site.handle = handle
		n.site.mu.Unlock()
		d := *w.fsm.State().Deployment(id)
		d.Spec.Health.Path, d.Spec.Health.Timeout = "/health?deep=1", 100
		err := p.Probe(t.Context(), &d)
		if errs.CodeOf(err) != errs.Unhealthy || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have: %v", want, err)
		}
	}
	if got := n.site.last().RequestURI; got != "/health?deep=1" {
		t.Errorf("asked for %q", got)
	}
}

func TestProbeTakesARedirectAsAnAnswer(t *testing.T) {
	w := newWorld(t, "n1")
	id := w.deploy("shop", fsm.PhaseHealthCheck, "n1")
	n := w.nodes("n1")["n1"]
	n.site.add(id)
	n.site.handle = func(w http.ResponseWriter, r *http.Request, _ string) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
	}
	p := n.prober()
	t.Cleanup(p.client.CloseIdleConnections)
	if err := p.Probe(t.Context(), w.fsm.State().Deployment(id)); err != nil {
		t.Error(err)
	}
}

func TestProbeOfARouteThatIsNotAppliedYet(t *testing.T) {
	w := newWorld(t, "n1")
	id := w.deploy("shop", fsm.PhaseCreatingSymlinks, "n1")
	n := w.nodes("n1")["n1"]
	n.site.add(id)
	p := n.prober()
	t.Cleanup(p.client.CloseIdleConnections)
	d := w.fsm.State().Deployment(id)
	if err := p.Probe(t.Context(), d); errs.CodeOf(err) != errs.Unhealthy || !strings.Contains(err.Error(), "404") {
		t.Errorf("probe: %v", err)
	}
	if err := p.Routed(t.Context(), d); errs.CodeOf(err) != errs.Unhealthy {
		t.Errorf("routed: %v", err)
	}
	routed := w.deploy("blog", fsm.PhaseUpdatingRoutes, "n1")
	if err := p.Routed(t.Context(), w.fsm.State().Deployment(routed)); err != nil {
		t.Error(err)
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	w := newWorld(t, "n1")
	id := w.deploy("shop", fsm.PhaseHealthCheck, "n1")
	d := w.fsm.State().Deployment(id)
	p := w.nodes("n1")["n1"].prober()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Probe(ctx, d); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestProbeFaultPoints(t *testing.T) {
	w := newWorld(t, "n1")
	id := w.deploy("shop", fsm.PhaseHealthCheck, "n1")
	n := w.nodes("n1")["n1"]
	n.site.add(id)
	p := n.prober()
	t.Cleanup(p.client.CloseIdleConnections)
	for _, point := range []string{"ingress.probe.before", "ingress.probe.after"} {
		dir := t.TempDir()
		if err := fault.Arm(point+"=error", dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = fault.Arm("", "") })
		if err := p.Probe(t.Context(), w.fsm.State().Deployment(id)); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("%s: %v", point, err)
		}
		if fired, _ := filepath.Glob(dir + "/*.fired"); len(fired) != 1 {
			t.Errorf("%s fired %v", point, fired)
		}
	}
}

func TestReachable(t *testing.T) {
	for in, want := range map[string]string{
		":7480": "127.0.0.1:7480", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", "10.0.0.1:1": "10.0.0.1:1", "x": "x",
	} {
		if got := reachable(in); got != want {
			t.Errorf("reachable(%q) = %q, want %q", in, got, want)
		}
	}
}
