package pki

import (
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"kontiki/errs"
)

// ServerTLS gives the accepting end of a connection between nodes: TLS 1.3, with a client certificate of any node of
// this cluster. protos are the ALPN protocols that are served; a peer that offers none of them is refused.
func (b *Bundle) ServerTLS(protos ...string) *tls.Config {
	cfg := b.base(protos)
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.VerifyConnection = b.verifyPeer("", x509.ExtKeyUsageClientAuth)
	return cfg
}

// ClientTLS gives the dialling end: it refuses a server that is not the node peerNodeID of this cluster; "" accepts
// any node of it.
func (b *Bundle) ClientTLS(peerNodeID, proto string) *tls.Config {
	cfg := b.base([]string{proto})
	// A peer is known by its node ID, not by the address it happens to have today, so the chain is verified by
	// verifyPeer instead of against a host name.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = b.verifyPeer(peerNodeID, x509.ExtKeyUsageServerAuth)
	return cfg
}

// APITLS gives the public API's listener: the node's certificate with the CA's behind it, no client certificate.
func (b *Bundle) APITLS() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{b.pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}
}

// PinnedTLS gives a joiner's end, which has nothing but the fingerprint from its token: it accepts only a chain whose
// CA has that fingerprint and whose leaf that CA signed for a server. The error is of code JoinToken.
func PinnedTLS(caFingerprint string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // replaced by the stricter check below; there is no root to verify against yet
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates[min(1, len(cs.PeerCertificates)):] {
				same := subtle.ConstantTimeCompare([]byte(fingerprint(c)), []byte(caFingerprint)) == 1
				if same && verify(cs.PeerCertificates[0], c, x509.ExtKeyUsageServerAuth) == nil {
					return nil
				}
			}
			return errs.New(errs.JoinToken, "the server does not belong to the cluster that the join token names").
				WithHint("check the address; make a new token with `kontiki token join` on a node of the cluster")
		},
	}
}

// NodeID gives the ID of the node at the other end, "" when it showed no certificate of a node. The chain has been
// verified by the connection's configuration when that came from ServerTLS or ClientTLS.
func NodeID(cs tls.ConnectionState) string {
	if len(cs.PeerCertificates) == 0 {
		return ""
	}
	return nodeOf(cs.PeerCertificates[0])
}

func (b *Bundle) base(protos []string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{b.pair},
		NextProtos:   protos,
	}
}

func (b *Bundle) verifyPeer(nodeID string, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the peer shows no certificate")
		}
		leaf := cs.PeerCertificates[0]
		if err := verify(leaf, b.CA.cert, usage); err != nil {
			return errs.New(errs.IdentityMismatch, "the peer is not a node of cluster %s: %w", b.ClusterID(), err)
		}
		if id := nodeOf(leaf); nodeID != "" && id != nodeID {
			return errs.New(errs.IdentityMismatch, "reached node %q where node %q was meant", id, nodeID)
		}
		return nil
	}
}

// verify checks that ca signed leaf, that both are in time, and that leaf names a node of the CA's cluster.
func verify(leaf, ca *x509.Certificate, usage x509.ExtKeyUsage) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		return err
	}
	if cluster := clusterOf(leaf); cluster == "" || cluster != clusterOf(ca) {
		return fmt.Errorf("certificate is of cluster %q, not of %q", cluster, clusterOf(ca))
	}
	if nodeOf(leaf) == "" {
		return errors.New("certificate names no node")
	}
	return nil
}

const (
	tokenVersion = "kj1"
	hexDigits    = "0123456789abcdef"
)

// FormatJoinToken gives what `kontiki token join` shows: kj1.<fingerprint>.<secret>.
func FormatJoinToken(caFingerprint, secret string) string {
	return tokenVersion + "." + caFingerprint + "." + secret
}

// ParseJoinToken takes such a token apart; errors are of code JoinToken and never repeat the token.
func ParseJoinToken(token string) (caFingerprint, secret string, err error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 || parts[0] != tokenVersion {
		return "", "", badToken("it does not have the form kj1.<fingerprint>.<secret>")
	}
	if len(parts[1]) != 64 || strings.Trim(parts[1], hexDigits) != "" {
		return "", "", badToken("its fingerprint is not 64 hex digits")
	}
	if parts[2] == "" {
		return "", "", badToken("its secret is missing")
	}
	return parts[1], parts[2], nil
}

func badToken(why string) error {
	return errs.New(errs.JoinToken, "this is not a join token: %s", why).WithField("token").
		WithHint("copy the whole line that `kontiki token join` prints on a node of the cluster")
}
