// Package node puts a Kontiki node together: it opens the parts in order, runs them, gives the leader role to the
// cluster, and takes everything down in the reverse order. It holds no logic of deployments.
//
// Open binds the listeners, so a taken port is known at once; Run works until its context ends or something fatal
// happens, and returns when every goroutine has ended.
package node
