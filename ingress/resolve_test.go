package ingress

import (
	"slices"
	"strings"
	"testing"

	"kontiki/fsm"
)

func TestResolve(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3")
	old := w.deploy("shop", fsm.PhaseActive, "n1", "n2")
	active := w.deploy("shop", fsm.PhaseActive, "n1", "n2", "n3")
	candidate := w.deploy("shop", fsm.PhaseUpdatingRoutes, "n1")
	other := w.deploy("blog", fsm.PhaseActive, "n3")
	early := w.deploy("new", fsm.PhaseCopyingFiles, "n2")
	domains := []string{"www.shop.example"}
	w.apply(fsm.ProjectUpdate{Name: "shop", Domains: &domains})

	const base = ".kontiki.localhost"
	lower := strings.ToLower
	for host, want := range map[string]string{
		"shop" + base:                            active,
		"SHOP.Kontiki.LocalHost":                 active,
		"shop" + base + ":7480":                  active,
		"shop" + base + ".":                      active,
		"shop" + base + ".:80":                   active,
		"www.shop.example":                       active,
		"WWW.shop.example.:443":                  active,
		"blog" + base:                            other,
		lower(old) + "--shop" + base:             old,
		lower(active) + "--shop" + base:          active,
		lower(candidate) + "--shop" + base + ":": candidate,
		candidate + "--SHOP" + base:              candidate,
		"d1--shop" + base:                        old,
		"D2--shop" + base:                        active,
		"d3--shop" + base:                        candidate,
		lower(early) + "--new" + base:            "", // has no route yet
		"d1--new" + base:                         "",
		"new" + base:                             "", // nothing active yet
		"d4--shop" + base:                        "",
		"d0--shop" + base:                        "",
		"d01--shop" + base:                       "",
		"d+1--shop" + base:                       "",
		"d18446744073709551615--shop" + base:     "",
		"d--shop" + base:                         "",
		"--shop" + base:                          "",
		"shop--" + base:                          "",
		"d1--d1--shop" + base:                    "",
		lower(other) + "--shop" + base:           "", // another project's
		lower(active[:25]) + "--shop" + base:     "",
		"x.shop" + base:                          "",
		"kontiki.localhost":                      "",
		base:                                     "",
		"shopkontiki.localhost":                  "",
		"shop.example":                           "",
		"x.www.shop.example":                     "",
		"":                                       "",
		".":                                      "",
		":80":                                    "",
		"..":                                     "",
		"127.0.0.1:7480":                         "",
		"[::1]:7480":                             "",
		"shop" + base + ":80:80":                 "",
		"shop" + base + ":99999":                 "",
		"shop" + base + ":evil":                  "",
		"shop" + base + "..":                     "",
		"user@shop" + base:                       "",
		"shop" + base + "/x":                     "",
		"shop" + base + "\x00":                   "",
		"shop\x00" + base:                        "",
		"sh\u00f6p" + base:                       "",
		"\u212aontiki.localhost":                 "", // the Kelvin sign lower-cases to k
		"shop.\u212aontiki.localhost":            "",
		strings.Repeat("a", 1<<16) + base:        "",
	} {
		route, ok := Resolve(w.fsm.State(), host)
		if ok != (want != "") || route.Deployment != want {
			t.Errorf("Resolve(%.80q) = %+v, %v; want %q", host, route, ok, want)
		}
	}
}

func TestResolveOnAnEmptyStateLeadsNowhere(t *testing.T) {
	if route, ok := Resolve(fsm.New().State(), "shop.kontiki.localhost"); ok {
		t.Errorf("leads to %+v", route)
	}
}

func TestReadyNodesComeFirst(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3")
	w.deploy("shop", fsm.PhaseActive, "n1", "n2", "n3")
	w.apply(fsm.NodeStatus{ID: "n1", State: fsm.NodeAway, Reason: "test"})
	route, ok := Resolve(w.fsm.State(), "shop.kontiki.localhost")
	if !ok || !slices.Equal(route.Instances, []string{"n2", "n3", "n1"}) || route.Ready != 2 {
		t.Errorf("route is %+v, %v", route, ok)
	}
}

func FuzzResolve(f *testing.F) {
	for _, host := range []string{"", "shop.kontiki.localhost:80", "d1--shop.kontiki.localhost", "[::1]:1"} {
		f.Add(host)
	}
	state := fsm.New()
	f.Fuzz(func(t *testing.T, host string) {
		if route, ok := Resolve(state.State(), host); ok {
			t.Errorf("%q leads to %+v", host, route)
		}
	})
}
