package cmd

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"kontiki/client"
	"kontiki/pki"
)

// The last resort when nothing says where a node is: this machine's own, which takes plain HTTP from loopback.
const localServer = "http://127.0.0.1:7400"

var fingerprintForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// access says how to reach the cluster: each part comes from a flag, else the environment, else the context file.
type access struct {
	servers []string
	token   string
	ca      string // fingerprint of the cluster's CA, or a file with its certificate
}

func (x *access) addFlags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&x.servers, "server", nil, "nodes to ask, any of them (KONTIKI_SERVER)")
	flags.StringVar(&x.token, "token", "", "API token (KONTIKI_TOKEN; arguments are visible to other users of the machine)")
	flags.StringVar(&x.ca, "ca", "", "the cluster CA's fingerprint, or a file with its certificate (KONTIKI_CA)")
}

// resolve fills in what the flags left open.
func (a *app) resolve() (access, error) {
	stored, err := a.loadContext()
	if err != nil {
		return access{}, err
	}
	x := a.access
	if len(x.servers) == 0 {
		x.servers = splitList(first(a.Getenv("KONTIKI_SERVER"), strings.Join(stored.servers, ","), localServer))
	}
	x.token = first(x.token, a.Getenv("KONTIKI_TOKEN"), stored.token)
	x.ca = first(x.ca, a.Getenv("KONTIKI_CA"), stored.ca)
	return x, nil
}

// client makes the client that the command line, the environment and the context file describe. It lives as long as the
// process.
func (a *app) client() (*client.Client, error) {
	x, err := a.resolve()
	if err != nil {
		return nil, err
	}
	return x.client(cmp.Or(a.Patience, 5*time.Second))
}

func (x access) client(patience time.Duration) (*client.Client, error) {
	for _, s := range x.servers {
		if err := checkPlain(s); err != nil {
			return nil, err
		}
	}
	trust, err := x.trust()
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{Addresses: x.servers, Token: x.token, TLS: trust, Patience: patience})
	if err != nil {
		return nil, &exitError{code: ExitUsage, err: err}
	}
	return c, nil
}

// trust gives what makes a server ours; nil leaves it to the system's certificates.
func (x access) trust() (*tls.Config, error) {
	switch {
	case x.ca == "":
		return nil, nil
	case fingerprintForm.MatchString(x.ca):
		return pki.PinnedTLS(x.ca), nil
	}
	pem, err := os.ReadFile(x.ca)
	if err != nil {
		return nil, usage("give the fingerprint that kontiki init printed, or the file <data>/tls/ca.crt", "read CA certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usage("it is <data>/tls/ca.crt on every node", "%s holds no certificate", x.ca)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// checkPlain refuses to send a token over a network in clear.
func checkPlain(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" {
		return nil // what is no URL at all is the client's to refuse
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usage("use https://"+u.Host, "%s would send the token in clear", server)
}

// contextPath is where the context file lies.
func (a *app) contextPath() (string, error) {
	if file := a.Getenv("KONTIKI_CONTEXT"); file != "" {
		return file, nil
	}
	dir := a.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := a.Getenv("HOME")
		if home == "" {
			return "", usage("set HOME, or name the file with KONTIKI_CONTEXT", "there is no home folder for the context file")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "kontiki", "context.yaml"), nil
}

// loadContext reads the context file; no file is an empty context.
func (a *app) loadContext() (access, error) {
	file, err := a.contextPath()
	if err != nil {
		return access{}, nil // without a home folder there is no context
	}
	if _, err := os.Stat(file); os.IsNotExist(err) {
		return access{}, nil
	}
	found, err := readYAML(file, []string{"server", "token", "ca"})
	if err != nil {
		return access{}, err
	}
	return access{servers: splitList(found["server"].text), token: found["token"].text, ca: found["ca"].text}, nil
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func first(candidates ...string) string {
	for _, c := range candidates {
		if c != "" {
			return c
		}
	}
	return ""
}
