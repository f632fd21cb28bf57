package cmd

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"kontiki/api"
	"kontiki/errs"
	"kontiki/fsm"
)

// renderPlan says what a deployment will do, one line per change: + is new, ~ is replaced, - is ended.
func renderPlan(plan api.Plan, content content) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Plan for project %s:\n", plan.Project)
	if plan.CreateProject {
		fmt.Fprintf(&b, "  + create project %s, served as %s\n", plan.Project, plan.Host)
	}
	if content.archive {
		fmt.Fprintf(&b, "  + upload %s, %s\n", content.path, size(content.bytes))
	} else {
		fmt.Fprintf(&b, "  + upload %s, %s\n", count(content.files, "file", "files"), size(content.bytes))
	}
	for _, d := range plan.Cancels {
		fmt.Fprintf(&b, "  - cancel number %d, which is %s\n", d.Number, d.Status)
	}
	for _, d := range plan.Waits {
		fmt.Fprintf(&b, "    wait for number %d, which is %s\n", d.Number, d.Status)
	}
	nodes := "no node: none is ready"
	if len(plan.Nodes) > 0 {
		nodes = strings.Join(plan.Nodes, ", ")
	}
	fmt.Fprintf(&b, "  + run release %d on %s\n", plan.Number, nodes)
	if plan.Replaces != nil {
		fmt.Fprintf(&b, "  ~ replace release %d%s, which serves until then\n", plan.Replaces.Number, labelled(plan.Replaces.Label))
	}
	return b.String()
}

func labelled(label string) string {
	if label == "" {
		return ""
	}
	return " (" + label + ")"
}

// siteURL gives an address under which a project can be opened: its host, at the port of a node's ingress.
func siteURL(host string, peers []api.Peer) string {
	port := "80"
	for _, p := range peers {
		if _, ingress, err := net.SplitHostPort(p.IngressAddr); err == nil {
			port = ingress
			break
		}
	}
	u := url.URL{Scheme: "http", Host: host, Path: "/"}
	if port != "80" {
		u.Host = net.JoinHostPort(host, port)
	}
	return u.String()
}

// writeFailure says for people why a deployment failed: where, the cause, the last log lines.
func writeFailure(w io.Writer, id string, f *fsm.Failure) {
	at := string(f.Phase)
	if f.Node != "" {
		at += " on node " + f.Node
	}
	message := strings.TrimSuffix(f.Message, " ("+f.Hint+")")
	fmt.Fprintf(w, "failed in %s: %s\n", at, message)
	for _, cause := range f.Causes {
		if !strings.Contains(f.Message, cause) {
			fmt.Fprintf(w, "  because: %s\n", cause)
		}
	}
	if len(f.LogTail) > 0 {
		fmt.Fprintln(w, "  last log lines:")
	}
	for _, line := range f.LogTail {
		fmt.Fprintf(w, "    | %s\n", line)
	}
	if f.Hint != "" {
		fmt.Fprintf(w, "  hint: %s\n", f.Hint)
	}
	fmt.Fprintf(w, "  all of it: kontiki logs %s\n", id)
}

// deploymentError is the error a deployment that did not come to serve ends the command with.
func deploymentError(d fsm.Deployment) error {
	next := "see what was done: kontiki status " + d.ID
	if d.Status == fsm.StatusCancelled {
		return errs.New(errs.Conflict, "the deployment was cancelled, what served before goes on serving").WithHint("%s", next)
	}
	e := errs.New(errs.Internal, "the deployment failed, what served before goes on serving").WithHint("%s", next)
	if d.Failure != nil {
		e.Code = d.Failure.Code
	}
	return e
}
