// Package docker serves static sites through a Docker engine on the same machine: one container per project and node,
// which runs Kontiki's own binary over the project's folder. It is the only package that knows Docker.
//
// Every operation looks at what the engine has and acts on the difference only, so it can be cut off at any instant and
// run again. What is Kontiki's is known by its labels (cluster, node, project, role), never by a name; nothing else is
// touched. Every call to the engine has a deadline, and an engine that fails or hangs is never taken for one that has
// nothing: only its "not found" is.
//
// All exported functions and methods are safe for concurrent use; operations on one project wait for each other.
package docker
