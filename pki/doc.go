// Package pki is a Kontiki cluster's own certificate authority: the keys and certificates with which nodes know each
// other, and the TLS configurations made from them.
//
// Every certificate belongs to one cluster and names one node, in a URI SAN of the form
// kontiki://<cluster>/node/<node>. Both ends of a connection between nodes check the chain up to the cluster's CA and
// that name, so a certificate of another cluster, or of another node than the one that was meant, is refused.
// Every node holds the CA's key, so any node can admit a joiner; it leaves a node only inside the answer to a join.
//
// A Bundle and a CA are values that nobody changes after making them: they are safe for concurrent use, and so are the
// TLS configurations they give.
package pki
