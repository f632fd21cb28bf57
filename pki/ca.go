package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"kontiki/errs"
)

const (
	// validity is how long certificates last. A cluster renews none by itself yet, so they outlive the machines.
	validity = 10 * 365 * 24 * time.Hour
	// backdate lets a node whose clock is a little behind accept a certificate made just now.
	backdate = time.Hour

	scheme  = "kontiki"
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)

// CA is a cluster's certificate authority.
type CA struct {
	// Cert and Key are PEM: an X.509 certificate and a PKCS #8 key.
	Cert, Key []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes the authority of a new cluster. clusterID becomes the host of every node's URI, so it must be made of
// letters, digits, '-', '_' and '.'; otherwise the error is of code Invalid.
func NewCA(clusterID string) (*CA, error) {
	if err := checkName("cluster", clusterID); err != nil {
		return nil, err
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Kontiki cluster " + clusterID},
		URIs:                  []*url.URL{{Scheme: scheme, Host: clusterID}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the cluster's CA certificate: %w", err)
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return ParseCA(pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der}), keyPEM)
}

// ParseCA reads an authority from its PEM forms.
func ParseCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read the CA certificate: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the CA key: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errs.New(errs.IdentityMismatch, "the CA's key does not belong to its certificate")
	}
	if !cert.IsCA || clusterOf(cert) == "" {
		return nil, errs.New(errs.IdentityMismatch, "the CA's certificate is not the certificate of a Kontiki cluster")
	}
	return &CA{Cert: certPEM, Key: keyPEM, cert: cert, key: key}, nil
}

// ClusterID gives the ID of the cluster the authority belongs to.
func (ca *CA) ClusterID() string { return clusterOf(ca.cert) }

// Fingerprint gives the SHA-256 of the CA certificate's DER form, as 64 lower-case hex digits.
func (ca *CA) Fingerprint() string { return fingerprint(ca.cert) }

// IssueNode signs a node's certificate over the key of its request (DER, from NewCSR) and gives it as PEM. hosts are
// the DNS names and IP addresses it is reached by; localhost and the loopback addresses are always among them. The
// request's signature and node ID are checked; every other wish in it is ignored.
func (ca *CA) IssueNode(nodeID string, csrDER []byte, hosts []string) ([]byte, error) {
	if err := checkName("node", nodeID); err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the certificate request: %w", err).WithField("csr")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errs.New(errs.Invalid, "check the certificate request: %w", err).WithField("csr")
	}
	if csr.Subject.CommonName != nodeID {
		return nil, errs.New(errs.IdentityMismatch, "the certificate request is of node %q, not of %q",
			csr.Subject.CommonName, nodeID).WithField("csr")
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: nodeID},
		URIs:         []*url.URL{{Scheme: scheme, Host: ca.ClusterID(), Path: "/node/" + nodeID}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	addHosts(template, append([]string{"localhost", "127.0.0.1", "::1"}, hosts...))
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, csr.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of node %s: %w", nodeID, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der}), nil
}

// NewKey makes an ECDSA key on P-256.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// EncodeKey gives a key's PEM form (PKCS #8).
func EncodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// NewCSR gives the DER form of a request for the node's certificate, which proves that the asker has the key.
func NewCSR(key *ecdsa.PrivateKey, nodeID string) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: nodeID}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}

func addHosts(template *x509.Certificate, hosts []string) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			if !slices.ContainsFunc(template.IPAddresses, ip.Equal) {
				template.IPAddresses = append(template.IPAddresses, ip)
			}
		} else if h != "" && !slices.Contains(template.DNSNames, h) {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
}

// newSerial makes a random serial number: no node keeps a count of the certificates it has signed.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return n, nil
}

// checkName refuses IDs that could not stand in a URI unescaped, or that a reader of one could take for a path.
func checkName(what, id string) error {
	ok := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if id == "" || len(id) > 128 || strings.Trim(id, ".") == "" || strings.ContainsFunc(id, func(r rune) bool { return !ok(r) }) {
		return errs.New(errs.Invalid, "%q cannot be the ID of a %s", id, what).WithField(what).
			WithHint("use up to 128 letters, digits, '-', '_' and '.'")
	}
	return nil
}

func parseCert(certPEM []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != pemCert {
		return nil, errors.New("no PEM certificate in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(keyPEM []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != pemKey {
		return nil, errors.New("no PEM key in it")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T, not an ECDSA key", key)
	}
	return ec, nil
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// clusterOf and nodeOf read a certificate's URI; they give "" when it has none of ours.
func clusterOf(cert *x509.Certificate) string {
	for _, u := range cert.URIs {
		if u.Scheme == scheme {
			return u.Host
		}
	}
	return ""
}

func nodeOf(cert *x509.Certificate) string {
	for _, u := range cert.URIs {
		if id, ok := strings.CutPrefix(u.Path, "/node/"); ok && u.Scheme == scheme {
			return id
		}
	}
	return ""
}
