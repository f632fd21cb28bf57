package httpapi

import "net/http"

var listParams = []string{"limit", "cursor"}

// routes is the whole API. The OpenAPI document is made of the same table.
func (s *server) routes() []route {
	get, post, patch, del := http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	deployments := append([]string{"status", "phase"}, listParams...)
	deploy := []string{"create", "replicas", "label", "health_path", "health_interval", "health_timeout", "health_retries", "health_start_period"}
	return []route{
		{method: get, path: "/healthz", open: true, serve: (*server).health, about: "Answers while the process lives."},
		{method: get, path: "/readyz", open: true, serve: (*server).ready, about: "Answers 200 when the node knows a leader and has caught up, for load balancers."},
		{method: post, path: "/api/cluster/join", open: true, write: true, serve: (*server).join, about: "Admits a node; authorised by the join token in the body."},

		{method: get, path: "/api/version", serve: (*server).version, about: "The node's version."},
		{method: get, path: "/api/openapi.json", serve: (*server).openapi, about: "This document."},

		{method: get, path: "/api/projects", query: listParams, serve: (*server).listProjects, about: "Lists projects by name."},
		{method: post, path: "/api/projects", write: true, serve: (*server).createProject, about: "Makes a project."},
		{method: get, path: "/api/projects/:project", serve: (*server).getProject, about: "Gets a project."},
		{method: patch, path: "/api/projects/:project", write: true, serve: (*server).updateProject, about: "Changes a project's domains or metadata."},
		{method: del, path: "/api/projects/:project", write: true, serve: (*server).deleteProject, about: "Removes a project with all its deployments."},
		{method: get, path: "/api/projects/:project/plan", query: []string{"create", "replicas"}, serve: (*server).plan, about: "Says what a deployment would do if it were made now."},
		{method: get, path: "/api/projects/:project/deployments", query: deployments, serve: (*server).listDeployments, about: "Lists a project's deployments, newest first."},
		{method: post, path: "/api/projects/:project/deployments", write: true, query: deploy, serve: (*server).deploy, about: "Deploys the archive in the body."},

		{method: get, path: "/api/deployments", query: append([]string{"project"}, deployments...), serve: (*server).listDeployments, about: "Lists deployments, newest first."},
		{method: get, path: "/api/deployments/:id", serve: (*server).getDeployment, about: "Gets a deployment with its steps and timeline."},
		{method: post, path: "/api/deployments/:id/cancel", write: true, serve: (*server).cancel, about: "Ends a queued or running deployment."},
		{method: get, path: "/api/deployments/:id/logs", serve: (*server).logs, about: "Gets what the deployment's steps have written."},
		{method: get, path: "/api/deployments/:id/events", stream: true, query: []string{"since"}, serve: (*server).deploymentEvents, about: "Streams what happens to a deployment until its end."},
		{method: get, path: "/api/events", stream: true, query: []string{"since", "project"}, serve: (*server).allEvents, about: "Streams what happens to deployments."},

		{method: get, path: "/api/cluster", serve: (*server).cluster, about: "How the cluster is, as this node sees it."},
		{method: get, path: "/api/cluster/peers", serve: (*server).peers, about: "Lists the nodes."},
		{method: del, path: "/api/cluster/peers/:id", write: true, serve: (*server).removePeer, about: "Takes a node out of the cluster for good."},
		{method: get, path: "/api/cluster/hashes", serve: (*server).hashes, about: "Compares the nodes' states at one log index."},
		{method: post, path: "/api/cluster/join-tokens", write: true, serve: (*server).createJoinToken, about: "Makes a token that admits one node, once."},
		{method: get, path: "/api/cluster/settings", serve: (*server).getSettings, about: "Gets the cluster's settings."},
		{method: patch, path: "/api/cluster/settings", write: true, serve: (*server).updateSettings, about: "Changes some of the cluster's settings."},

		{method: get, path: "/api/tokens", query: listParams, serve: (*server).listTokens, about: "Lists API tokens, without their secrets."},
		{method: post, path: "/api/tokens", write: true, serve: (*server).createToken, about: "Makes an API token; its secret is shown this once."},
		{method: del, path: "/api/tokens/:id", write: true, serve: (*server).revokeToken, about: "Ends an API token for good."},

		{method: get, path: "/api/repairs", query: append([]string{"node", "state"}, listParams...), serve: (*server).listRepairs, about: "Lists repairs, newest first."},
		{method: get, path: "/api/audit", query: listParams, serve: (*server).listAudit, about: "Lists what was changed, newest first."},
	}
}
