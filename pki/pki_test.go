package pki

import (
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kontiki/errs"
	"kontiki/fault"
)

func newCA(t *testing.T, cluster string) *CA {
	t.Helper()
	ca, err := NewCA(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *CA, node string) *Bundle {
	t.Helper()
	b, err := ca.Issue(node, []string{"10.0.0.7", "box.example"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shake runs one handshake over a real socket, a byte going to and fro, and gives what each end saw of the other.
func shake(t *testing.T, server, client *tls.Config) (seenByServer, seenByClient string, err error) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}()
	type end struct {
		id  string
		err error
	}
	accepted := make(chan end, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			accepted <- end{err: err}
			return
		}
		defer c.Close()
		conn := c.(*tls.Conn)
		_, err = io.CopyN(conn, conn, 1)
		accepted <- end{NodeID(conn.ConnectionState()), err}
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err == nil {
		defer c.Close()
		if _, err = c.Write([]byte{1}); err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		seenByClient = NodeID(c.ConnectionState())
	}
	s := <-accepted
	return s.id, seenByClient, errors.Join(err, s.err)
}

func TestNodesKnowEachOther(t *testing.T) {
	ca := newCA(t, "c1")
	n1, n2 := issue(t, ca, "n1"), issue(t, ca, "n2")
	for _, want := range []string{"n1", ""} {
		server, client, err := shake(t, n1.ServerTLS("p"), n2.ClientTLS(want, "p"))
		if err != nil || server != "n2" || client != "n1" {
			t.Errorf("meaning %q: server saw %q, client saw %q: %v", want, server, client, err)
		}
	}
	if n1.ID() != "n1" || n1.ClusterID() != "c1" {
		t.Errorf("%s of %s", n1.ID(), n1.ClusterID())
	}
	if NodeID(tls.ConnectionState{}) != "" {
		t.Error("nobody is at the other end")
	}
}

func TestStrangersAreRefused(t *testing.T) {
	ca, other := newCA(t, "c1"), newCA(t, "c1") // the same name does not make it the same cluster
	n1, n2, stranger := issue(t, ca, "n1"), issue(t, ca, "n2"), issue(t, other, "n2")
	cases := map[string]struct{ server, client *tls.Config }{
		"another node than meant":  {n1.ServerTLS("p"), n2.ClientTLS("n3", "p")},
		"client of other cluster":  {n1.ServerTLS("p"), stranger.ClientTLS("n1", "p")},
		"server of other cluster":  {stranger.ServerTLS("p"), n1.ClientTLS("n2", "p")},
		"no client certificate":    {n1.ServerTLS("p"), PinnedTLS(ca.Fingerprint())},
		"protocol nobody serves":   {n1.ServerTLS("p"), n2.ClientTLS("n1", "q")},
		"pinned to another CA":     {n1.APITLS(), PinnedTLS(other.Fingerprint())},
		"server without any chain": {bare(n1), PinnedTLS(ca.Fingerprint())},
		"CA shown by a stranger":   {borrowed(stranger, ca), PinnedTLS(ca.Fingerprint())},
	}
	for name, c := range cases {
		if _, _, err := shake(t, c.server, c.client); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// bare serves the leaf alone; borrowed serves it with a CA behind it that did not sign it.
func bare(b *Bundle) *tls.Config {
	pair := b.pair
	pair.Certificate = pair.Certificate[:1]
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func borrowed(b *Bundle, ca *CA) *tls.Config {
	pair := b.pair
	pair.Certificate = [][]byte{pair.Certificate[0], ca.cert.Raw}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func TestJoinerTrustsTheFingerprint(t *testing.T) {
	ca := newCA(t, "c1")
	if _, client, err := shake(t, issue(t, ca, "n1").APITLS(), PinnedTLS(ca.Fingerprint())); err != nil || client != "n1" {
		t.Fatalf("%q: %v", client, err)
	}
}

func TestIssueRefusesWhatItShould(t *testing.T) {
	ca := newCA(t, "c1")
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewCSR(key, "n1")
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), csr...)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string]struct {
		node string
		csr  []byte
		code errs.Code
	}{
		"another node's request": {"n2", csr, errs.IdentityMismatch},
		"no name":                {"", csr, errs.Invalid},
		"a path for a name":      {"../n1", csr, errs.Invalid},
		"dots for a name":        {"..", csr, errs.Invalid},
		"a long name":            {strings.Repeat("n", 129), csr, errs.Invalid},
		"rubbish":                {"n1", []byte("rubbish"), errs.Invalid},
		"a bad signature":        {"n1", flipped, errs.Invalid},
	} {
		if _, err := ca.IssueNode(c.node, c.csr, nil); errs.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewCA("a/b"); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("cluster a/b: %v", err)
	}
}

func TestCertificateNamesItsHosts(t *testing.T) {
	leaf := issue(t, newCA(t, "c1"), "n1").leaf
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "10.0.0.7", "box.example"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if got := leaf.URIs[0].String(); got != "kontiki://c1/node/n1" {
		t.Error(got)
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing there: %v", err)
	}
	b := issue(t, newCA(t, "c1"), "n1")
	for range 2 { // saving over an old bundle works as well
		if err := b.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(dir)
	if err != nil || got.ID() != "n1" || got.CA.Fingerprint() != b.CA.Fingerprint() {
		t.Fatalf("%v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%d files: %v", len(entries), err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if secret := strings.HasSuffix(e.Name(), ".key"); secret && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", e.Name(), info.Mode())
		}
	}
}

func TestLoadRefusesABrokenBundle(t *testing.T) {
	ca := newCA(t, "c1")
	b, other := issue(t, ca, "n1"), issue(t, newCA(t, "c2"), "n1")
	for name, breakIt := range map[string]func(dir string) error{
		"missing CA key":     func(d string) error { return os.Remove(filepath.Join(d, fileCAKey)) },
		"empty certificate":  func(d string) error { return os.WriteFile(filepath.Join(d, fileCert), nil, 0o600) },
		"other CA":           func(d string) error { return os.WriteFile(filepath.Join(d, fileCACert), other.CA.Cert, 0o600) },
		"other CA with key":  func(d string) error { return swapCA(d, other) },
		"other key":          func(d string) error { return os.WriteFile(filepath.Join(d, fileKey), other.Key, 0o600) },
		"rubbish for a key":  func(d string) error { return os.WriteFile(filepath.Join(d, fileCAKey), []byte("x"), 0o600) },
		"leaf for authority": func(d string) error { return swapCA(d, &Bundle{CA: &CA{Cert: b.Cert, Key: b.Key}}) },
	} {
		dir := t.TempDir()
		if err := errors.Join(b.Save(dir), breakIt(dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); errs.CodeOf(err) != errs.IdentityMismatch || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func swapCA(dir string, b *Bundle) error {
	return errors.Join(os.WriteFile(filepath.Join(dir, fileCACert), b.CA.Cert, 0o600),
		os.WriteFile(filepath.Join(dir, fileCAKey), b.CA.Key, 0o600))
}

func TestSaveFailsAtItsFaultPoints(t *testing.T) {
	b := issue(t, newCA(t, "c1"), "n1")
	for _, point := range []string{"pki.save.before", "pki.save.after"} {
		if err := fault.Arm(point+"=error", t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if err := b.Save(t.TempDir()); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("%s: %v", point, err)
		}
	}
	if err := fault.Arm("", ""); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Save(file); err == nil {
		t.Error("saved below a file")
	}
}

func TestJoinToken(t *testing.T) {
	ca := newCA(t, "c1")
	fp, secret, err := ParseJoinToken(" " + FormatJoinToken(ca.Fingerprint(), "s3cret") + "\n")
	if err != nil || fp != ca.Fingerprint() || secret != "s3cret" {
		t.Fatalf("%q %q: %v", fp, secret, err)
	}
	for _, bad := range []string{"", "x", "kj2." + fp + ".s", "kj1." + fp, "kj1.zz.s", "kj1." + strings.ToUpper(fp) + ".s",
		"kj1." + fp + ".", "kj1." + fp + ".a.b"} {
		if _, _, err := ParseJoinToken(bad); errs.CodeOf(err) != errs.JoinToken || bad != "" && strings.Contains(err.Error(), bad) && len(bad) > 1 {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
