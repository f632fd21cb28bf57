package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"time"

	"kontiki/api"
	"kontiki/client"
	"kontiki/cluster"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/pki"
)

// Init makes a cluster of one node on an empty data directory, and returns; nothing keeps running.
func Init(ctx context.Context, o InitOptions) (InitResult, error) {
	o.Config = o.Config.withDefaults()
	if err := errors.Join(o.Config.validate(), fsm.CheckName("node", o.NodeID)); err != nil {
		return InitResult{}, errs.From(err)
	}
	settings := o.Settings
	if reflect.ValueOf(settings).IsZero() {
		settings = fsm.DefaultSettings()
	}
	settings.BaseDomain = cmp.Or(o.BaseDomain, settings.BaseDomain)
	if err := settings.Validate(); err != nil {
		return InitResult{}, err
	}
	if err := claim(o.DataDir); err != nil {
		return InitResult{}, err
	}
	r, err := initIn(ctx, o, settings)
	if err != nil {
		removeClaim(o.DataDir)
	}
	return r, err
}

// removeClaim empties a data directory that claim had found empty: nothing half made is left.
func removeClaim(dataDir string) {
	entries, err := os.ReadDir(dataDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		_ = os.RemoveAll(dataDir + string(os.PathSeparator) + e.Name()) // the first error is the one that is told
	}
}

func initIn(ctx context.Context, o InitOptions, settings fsm.Settings) (InitResult, error) {
	clusterID := fsm.NewID()
	ca, err := pki.NewCA(clusterID)
	if err != nil {
		return InitResult{}, fmt.Errorf("make the cluster's CA: %w", err)
	}
	bundle, err := ca.Issue(o.NodeID, hosts(o.Config))
	if err != nil {
		return InitResult{}, fmt.Errorf("make the node's certificate: %w", err)
	}
	if err := bundle.Save(o.path("tls")); err != nil {
		return InitResult{}, err
	}
	id := identityOf(o.Config, clusterID, o.NodeID, ca.Fingerprint())
	secret := "kt_" + rand.Text()
	body := fsm.ClusterInit{ID: clusterID, Settings: settings, Node: id.node(EngineAuto),
		Token: fsm.Token{ID: fsm.NewID(), Name: "admin", Role: "admin", Hash: hashSecret(secret)}}
	if err := firstEntry(ctx, o.Config, id, bundle, body); err != nil {
		return InitResult{}, fmt.Errorf("write the first log entry: %w", err)
	}
	id.Started = true
	if err := id.save(o.DataDir); err != nil {
		return InitResult{}, err
	}
	return InitResult{ClusterID: clusterID, NodeID: o.NodeID, Token: secret, Fingerprint: ca.Fingerprint()}, nil
}

// firstEntry bootstraps the Raft group with this node as its one voter and commits the cluster.
func firstEntry(ctx context.Context, cfg Config, id Identity, bundle *pki.Bundle, body fsm.ClusterInit) error {
	if err := claimLog(cfg.path("raft"), id); err != nil {
		return err
	}
	port, err := cluster.NewPort(cluster.PortConfig{Bind: "127.0.0.1:0", Bundle: bundle, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	defer port.Close()
	c, err := cluster.Open(cluster.Config{NodeID: id.NodeID, ClusterID: id.ClusterID, Dir: cfg.path("raft"), Machine: fsm.New(),
		Network: port, Logger: cfg.Logger.With("node", id.NodeID)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.Bootstrap(body.Node.ClusterAddr); err != nil {
		return errors.Join(err, c.Close(ctx))
	}
	r, err := c.Propose(ctx, fsm.NewCommand(body, fsm.NodeActor(id.NodeID)))
	if err == nil && r.Err != nil {
		err = r.Err
	}
	return errors.Join(err, c.Close(ctx))
}

// Join makes an empty data directory that of a new node of an existing cluster; kontiki server then starts it.
func Join(ctx context.Context, o JoinOptions) (JoinResult, error) {
	o.Config = o.Config.withDefaults()
	if err := errors.Join(o.Config.validate(), fsm.CheckName("node", o.NodeID)); err != nil {
		return JoinResult{}, errs.From(err)
	}
	fingerprint, _, err := pki.ParseJoinToken(o.Token)
	if err != nil {
		return JoinResult{}, err
	}
	if err := claim(o.DataDir); err != nil {
		return JoinResult{}, err
	}
	r, err := joinIn(ctx, o, fingerprint)
	if err != nil {
		removeClaim(o.DataDir)
	}
	return r, err
}

func joinIn(ctx context.Context, o JoinOptions, fingerprint string) (JoinResult, error) {
	key, err := pki.NewKey()
	if err != nil {
		return JoinResult{}, fmt.Errorf("make a key: %w", err)
	}
	csr, err := pki.NewCSR(key, o.NodeID)
	if err != nil {
		return JoinResult{}, fmt.Errorf("make a certificate request: %w", err)
	}
	c, err := client.New(client.Config{Addresses: []string{o.URL}, TLS: pki.PinnedTLS(fingerprint)})
	if err != nil {
		return JoinResult{}, err
	}
	defer c.Close()
	id := identityOf(o.Config, "", o.NodeID, fingerprint)
	me := id.node("")
	answer, err := c.Join(ctx, api.JoinRequest{Token: o.Token, CSR: csr, Node: api.JoinNode{ID: me.ID, ClusterAddr: me.ClusterAddr,
		APIAddr: me.APIAddr, IngressAddr: me.IngressAddr, Version: me.Version, Incarnation: me.Incarnation}})
	if err != nil {
		return JoinResult{}, fmt.Errorf("join the cluster at %s: %w", o.URL, err)
	}
	ca, err := pki.ParseCA(answer.CACert, answer.CAKey)
	if err != nil {
		return JoinResult{}, fmt.Errorf("read the cluster's CA: %w", err)
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return JoinResult{}, fmt.Errorf("encode the key: %w", err)
	}
	bundle, err := pki.NewBundle(ca, answer.Certificate, keyPEM)
	if err != nil {
		return JoinResult{}, fmt.Errorf("read the node's certificate: %w", err)
	}
	if err := bundle.Save(o.path("tls")); err != nil {
		return JoinResult{}, err
	}
	id.ClusterID = answer.ClusterID
	return JoinResult{ClusterID: id.ClusterID, NodeID: o.NodeID}, id.save(o.DataDir)
}

func identityOf(cfg Config, clusterID, nodeID, fingerprint string) Identity {
	return Identity{ClusterID: clusterID, NodeID: nodeID, Incarnation: fsm.NewID(), Fingerprint: fingerprint,
		ClusterAddr: cfg.ClusterAddr, APIAddr: cfg.APIAddr, IngressAddr: cfg.IngressAddr,
		Advertise: cfg.Advertise}
}

// node is the identity as the replicated state has it.
func (id Identity) node(engine string) fsm.Node {
	cfg := Config{Advertise: id.Advertise}
	return fsm.Node{ID: id.NodeID, ClusterAddr: cfg.advertised(id.ClusterAddr), APIAddr: cfg.advertised(id.APIAddr),
		IngressAddr: cfg.advertised(id.IngressAddr), Engine: engine, Version: Version, Incarnation: id.Incarnation}
}

// hosts are the names the node's certificate is good for.
func hosts(cfg Config) []string {
	set := []string{cfg.Advertise}
	for _, a := range []string{cfg.ClusterAddr, cfg.APIAddr} {
		if h, _, err := net.SplitHostPort(a); err == nil && h != "" && !net.ParseIP(h).IsUnspecified() {
			set = append(set, h)
		}
	}
	return set
}

// hashSecret is what is stored of a token.
func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func hexHash(secret string) string { return hex.EncodeToString(hashSecret(secret)) }
