package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kontiki/errs"
	"kontiki/fault"
)

// The files of a bundle, below <data>/tls/.
const (
	fileCACert = "ca.crt"
	fileCAKey  = "ca.key"
	fileCert   = "node.crt"
	fileKey    = "node.key"
)

// Bundle is what a node has: the cluster's authority, and its own certificate and key.
type Bundle struct {
	// CA is the cluster's authority.
	CA *CA
	// Cert and Key are the node's own, PEM.
	Cert, Key []byte

	leaf *x509.Certificate
	pair tls.Certificate
}

// NewBundle puts a bundle together and checks it: the certificate must be of the authority and of the key. Otherwise
// the error is of code IdentityMismatch.
func NewBundle(ca *CA, certPEM, keyPEM []byte) (*Bundle, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, errs.New(errs.IdentityMismatch, "the node's certificate and key do not belong together: %w", err)
	}
	leaf := pair.Leaf
	if err := verify(leaf, ca.cert, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, errs.New(errs.IdentityMismatch, "the node's certificate is not of this cluster: %w", err)
	}
	// The CA's certificate goes along, so that a joiner can compare it with the fingerprint it was given.
	pair.Certificate = append(pair.Certificate, ca.cert.Raw)
	return &Bundle{CA: ca, Cert: certPEM, Key: keyPEM, leaf: leaf, pair: pair}, nil
}

// Issue makes a whole bundle for a node of the authority's own cluster: `kontiki init` and tests need no request.
func (ca *CA) Issue(nodeID string, hosts []string) (*Bundle, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := NewCSR(key, nodeID)
	if err != nil {
		return nil, err
	}
	certPEM, err := ca.IssueNode(nodeID, csr, hosts)
	if err != nil {
		return nil, err
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return NewBundle(ca, certPEM, keyPEM)
}

// ID gives the node's ID, as its certificate has it.
func (b *Bundle) ID() string { return nodeOf(b.leaf) }

// ClusterID gives the ID of the cluster the bundle belongs to.
func (b *Bundle) ClusterID() string { return b.CA.ClusterID() }

// Save writes the bundle below dir (<data>/tls), each file whole or not at all; keys are readable by the owner only.
// The node's certificate comes last: Load finds a bundle only once everything is there.
func (b *Bundle) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder for keys: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{fileCACert, b.CA.Cert, 0o644}, {fileCAKey, b.CA.Key, 0o600}, {fileKey, b.Key, 0o600}, {fileCert, b.Cert, 0o644},
	} {
		if err := writeFile(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return fmt.Errorf("save %s: %w", filepath.Join(dir, f.name), err)
		}
	}
	return nil
}

// Load reads what Save wrote and checks that it belongs together. Where there is no bundle the error is fs.ErrNotExist,
// where there is a broken one it is of code IdentityMismatch and names the folder.
func Load(dir string) (*Bundle, error) {
	files := map[string][]byte{fileCert: nil, fileCACert: nil, fileCAKey: nil, fileKey: nil}
	for name := range files {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			if _, statErr := os.Stat(filepath.Join(dir, fileCert)); statErr == nil && errors.Is(err, fs.ErrNotExist) {
				return nil, broken(dir, err)
			}
			return nil, fmt.Errorf("load the node's keys: %w", err)
		}
		files[name] = data
	}
	ca, err := ParseCA(files[fileCACert], files[fileCAKey])
	if err != nil {
		return nil, broken(dir, err)
	}
	b, err := NewBundle(ca, files[fileCert], files[fileKey])
	if err != nil {
		return nil, broken(dir, err)
	}
	return b, nil
}

func broken(dir string, err error) error {
	// The cause's own class, such as fs.ErrNotExist, must not show: this is no node that was never set up.
	return errs.New(errs.IdentityMismatch, "the keys in %s are damaged: %s", dir, err).
		WithHint("restore the folder from a copy, or move the data directory away, run `kontiki peers remove` for this " +
			"node on another one and join again under a new ID")
}

// writeFile replaces a file so that after a crash at any moment it is there as it was or as it is to be.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := fault.Point("pki.save.before"); err != nil {
		return err
	}
	temp, err := writeTemp(filepath.Dir(path), data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return fault.Point("pki.save.after")
}

// writeTemp leaves a synced file of a new name in dir and gives its path; on an error it leaves none.
func writeTemp(dir string, data []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
