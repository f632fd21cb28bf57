package ingress

import (
	"strconv"
	"strings"

	"kontiki/fsm"
)

// maxHost is the longest host name that is looked up, in bytes; DNS allows no longer one.
const maxHost = 253

// Route is where a host leads.
type Route struct {
	Project    string   // name
	Deployment string   // ID of the release that serves; "" when the project has none that does
	Instances  []string // IDs of the nodes that have the release, those in state ready first, each part by ID
	Ready      int      // how many of Instances, from the front, are on nodes in state ready
}

// Resolve finds the release a host leads to; port, a trailing dot and letter case do not matter. These hosts lead
// somewhere:
//
//	<project>.<base domain>                   the project's active deployment
//	a domain of the project                   the same
//	<deployment ID>--<project>.<base domain>  that deployment, while it is routable
//	d<number>--<project>.<base domain>        the project's deployment of that number, while it is routable
//
// It reports false for every other host. The route then still names the project when there is one.
func Resolve(s *fsm.State, host string) (Route, bool) {
	host, ok := normalize(host)
	if !ok {
		return Route{}, false
	}
	label, below := strings.CutSuffix(host, "."+s.Settings().BaseDomain)
	if !below || strings.Contains(label, ".") {
		return activeRoute(s, s.ProjectByDomain(host))
	}
	if name, project, release := strings.Cut(label, "--"); release {
		return releaseRoute(s, s.Project(project), name)
	}
	return activeRoute(s, s.Project(label))
}

// normalize gives the lower-case name without port and trailing dot, and whether it is made of the letters, digits,
// dashes and dots that routable names have.
func normalize(host string) (string, bool) {
	if name, port, found := strings.Cut(host, ":"); found {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil && port != "" {
			return "", false
		}
		host = name
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > maxHost {
		return "", false
	}
	for _, c := range []byte(host) { // before lower-casing, which makes ASCII letters of some others
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return "", false
		}
	}
	return strings.ToLower(host), true
}

func activeRoute(s *fsm.State, p *fsm.Project) (Route, bool) {
	if p == nil {
		return Route{}, false
	}
	d := s.ActiveOf(p)
	if d == nil {
		return Route{Project: p.Name}, false
	}
	return routeTo(s, d), true
}

func releaseRoute(s *fsm.State, p *fsm.Project, name string) (Route, bool) {
	if p == nil {
		return Route{}, false
	}
	d := findRelease(s, p.Name, name)
	if d == nil || d.Project != p.Name || !d.Routable() {
		return Route{Project: p.Name}, false
	}
	return routeTo(s, d), true
}

// findRelease finds a deployment by its ID in lower case, or by "d" and its number without leading zeros.
func findRelease(s *fsm.State, project, name string) *fsm.Deployment {
	digits, numbered := strings.CutPrefix(name, "d")
	if !numbered {
		return s.Deployment(strings.ToUpper(name))
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || digits[0] == '0' {
		return nil
	}
	for d := range s.DeploymentsOf(project, n+1) {
		if d.Number == n {
			return d
		}
		break
	}
	return nil
}

func routeTo(s *fsm.State, d *fsm.Deployment) Route {
	r := Route{Project: d.Project, Deployment: d.ID, Instances: make([]string, 0, len(d.Instances))}
	for _, i := range d.Instances {
		if n := s.Node(i.Node); n != nil && n.State == fsm.NodeReady {
			r.Instances = append(r.Instances, i.Node)
		}
	}
	r.Ready = len(r.Instances)
	for _, i := range d.Instances {
		if n := s.Node(i.Node); n != nil && n.State != fsm.NodeReady {
			r.Instances = append(r.Instances, i.Node)
		}
	}
	return r
}
