package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"kontiki/agent"
	"kontiki/artifact"
	"kontiki/cluster"
	"kontiki/docker"
	"kontiki/errs"
	"kontiki/fsm"
	"kontiki/httpapi"
	"kontiki/ingress"
	"kontiki/pki"
	"kontiki/reconcile"
	"kontiki/static"
)

// Node is one running node.
type Node struct {
	cfg      Config
	identity Identity
	bundle   *pki.Bundle
	fsm      *fsm.FSM
	port     *cluster.Port
	cluster  *cluster.Cluster
	blobs    *blobs
	logs     *stepLogs
	agent    *agent.Agent
	servers  []server
	ingress  *http.Server // serves once this node has caught up
	reserved *reservation // of the ingress address until then
	engine   string
	stopping atomic.Bool
	caughtUp chan struct{} // closed when what was committed before this start is applied here

	closers []func() // in the order of opening
}

// server is an HTTP server with the listener it serves.
type server struct {
	name     string
	http     *http.Server
	listener net.Listener
}

// Open brings the node up to the point where Run can start: it checks the data directory, opens the stores and binds
// every listener.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	identity, err := LoadIdentity(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	cfg = cfg.from(identity)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cfg.Logger.With("node", identity.NodeID)
	n := &Node{cfg: cfg, identity: identity, fsm: fsm.New(), logs: &stepLogs{dir: cfg.path("logs"), node: identity.NodeID},
		caughtUp: make(chan struct{})}
	if err := n.open(ctx); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *Node) open(ctx context.Context) error {
	if err := n.openCluster(); err != nil {
		return err
	}
	store, err := artifact.Open(n.cfg.path("blobs"))
	if err != nil {
		return fmt.Errorf("open the blobs: %w", err)
	}
	n.blobs = &blobs{self: n.ID(), store: store, state: n.fsm.State, voters: n.voters, client: n.port.Client(), logger: n.cfg.Logger}
	syncer, err := artifact.NewSyncer(n.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("open the data directory for syncing: %w", err)
	}
	n.onClose(func() { n.warn("close the syncer", syncer.Close()) })
	store.ShareSyncs(syncer)
	local, err := static.Open(n.cfg.DataDir, syncer)
	if err != nil {
		return fmt.Errorf("open the releases: %w", err)
	}
	n.onClose(local.Close)
	engine, err := n.openEngine(ctx, local)
	if err != nil {
		return err
	}
	return n.listen(engine, sites{local})
}

func (n *Node) openCluster() error {
	bundle, err := pki.Load(n.cfg.path("tls"))
	if err != nil {
		return fmt.Errorf("load the node's keys: %w", err)
	}
	if bundle.ID() != n.identity.NodeID || bundle.ClusterID() != n.identity.ClusterID {
		return errs.New(errs.IdentityMismatch, "the keys in %s are those of node %q of cluster %s, the data those of node %q", n.cfg.path("tls"),
			bundle.ID(), bundle.ClusterID(), n.identity.NodeID).WithHint("put back the directory as it was, or join again under a new ID")
	}
	n.bundle = bundle
	if err := claimLog(n.cfg.path("raft"), n.identity); err != nil {
		return err
	}
	n.port, err = cluster.NewPort(cluster.PortConfig{Bind: n.cfg.ClusterAddr, Advertise: n.cfg.advertised(n.cfg.ClusterAddr), Bundle: bundle,
		Authorize: n.authorize, Logger: n.cfg.Logger})
	if err != nil {
		return err
	}
	n.onClose(func() { n.warn("close the cluster port", n.port.Close()) })
	n.cluster, err = cluster.Open(cluster.Config{NodeID: n.ID(), ClusterID: n.identity.ClusterID, Dir: n.cfg.path("raft"),
		Expect: n.identity.Started, Machine: n.fsm, Network: n.port, Logger: n.cfg.Logger})
	return err
}

// served is an engine the ingress can serve from.
type served interface {
	agent.Engine
	ingress.Local
}

// openEngine chooses what runs the sites' servers.
func (n *Node) openEngine(ctx context.Context, local *static.Sites) (served, error) {
	choice := n.cfg.Engine
	if choice == EngineAuto {
		choice = EngineEmbedded
		if err := docker.Available(ctx, n.cfg.DockerHost); err == nil {
			choice = EngineDocker
		}
	}
	n.engine = choice
	if choice == EngineEmbedded {
		return embedded{local.Server()}, nil
	}
	e, err := n.openDocker(ctx)
	if err != nil && n.cfg.Engine == EngineAuto {
		n.cfg.Logger.Warn("the Docker engine answers but cannot be used, the node serves sites itself", "error", err)
		n.engine = EngineEmbedded
		return embedded{local.Server()}, nil
	}
	return e, err
}

func (n *Node) openDocker(ctx context.Context) (served, error) {
	e, err := docker.Open(ctx, docker.Config{Host: n.cfg.DockerHost, ClusterID: n.identity.ClusterID, NodeID: n.ID(),
		DataDir: n.cfg.DataDir, Logger: n.cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("open the Docker engine: %w", err)
	}
	n.onClose(func() { n.warn("close the Docker engine", e.Close()) })
	return e, nil
}

// listen binds the listeners for users and puts the handlers and the agent together.
func (n *Node) listen(engine served, local sites) error {
	in := ingress.New(ingress.Config{NodeID: n.ID(), States: n.fsm, Local: engine, Peers: peers{n}, Logger: n.cfg.Logger})
	reserved, err := reserve(n.cfg.IngressAddr)
	if err != nil {
		return taken("ingress_addr", n.cfg.IngressAddr, err)
	}
	n.onClose(reserved.close)
	n.reserved, n.ingress = reserved, n.httpServer(in.Handler())
	apiListener, err := net.Listen("tcp", n.cfg.APIAddr)
	if err != nil {
		return taken("api_addr", n.cfg.APIAddr, err)
	}
	users := n.serve("api", sniff(apiListener, n.bundle.APITLS()), httpapi.New(httpapi.Deps{Replica: replica{n.fsm, n}, Uploads: n, Members: n,
		Logs: n, Node: n, Place: reconcile.Targets, MaxUpload: n.cfg.MaxUpload, Logger: n.cfg.Logger,
		JoinToken: func(secret string) string { return pki.FormatJoinToken(n.bundle.CA.Fingerprint(), secret) }}))
	users.ReadTimeout, users.WriteTimeout = 30*time.Second, time.Minute // the API itself gives uploads and streams their own
	n.serve("cluster", n.port.HTTP(), n.peerHandler(in))
	n.agent = agent.New(agent.Config{Node: n.ID(), Replica: n.fsm, Proposer: n.cluster, Blobs: n.blobs, Sites: local, Engine: engine,
		Inspector: local, Prober: in.Prober(reserved.addr.String()), Logs: n.logs, Logger: n.cfg.Logger})
	return nil
}

func taken(field, addr string, err error) error {
	return errs.New(errs.Invalid, "listen on %s: %w", addr, err).WithField(field).WithHint("another process may use the port: choose another one")
}

// serve remembers a server for Run.
func (n *Node) serve(name string, l net.Listener, h http.Handler) *http.Server {
	n.onClose(func() { _ = l.Close() }) // a server that ran has closed it already
	s := n.httpServer(h)
	n.servers = append(n.servers, server{name: name, listener: l, http: s})
	return s
}

// httpServer limits headers and idle connections; not bodies, for uploads and streams take their time.
func (n *Node) httpServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: quiet(n.cfg.Logger)}
}

// peerHandler is what other nodes may ask of this one, over mTLS.
func (n *Node) peerHandler(in *ingress.Ingress) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/cluster/", n.cluster.Handler())
	mux.Handle("/blobs/", artifact.Handler(n.blobs.store))
	mux.HandleFunc("GET /logs/{deployment}", n.serveLogs)
	mux.HandleFunc("GET /hash/{index}", n.serveHash)
	mux.HandleFunc("GET /inventory", n.serveInventory)
	relay := in.RelayHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := n.known(r); err != nil {
			http.Error(w, err.Error(), errs.Status(errs.CodeOf(err)))
			return
		}
		if ingress.IsRelayed(r) {
			relay.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// Addrs gives the addresses that are listened on.
func (n *Node) Addrs() (clusterAddr, apiAddr, ingressAddr string) {
	for _, s := range n.servers {
		if s.name == "api" {
			apiAddr = s.listener.Addr().String()
		}
	}
	return n.port.Addr(), apiAddr, n.reserved.addr.String()
}

func (n *Node) onClose(f func()) { n.closers = append(n.closers, f) }

func (n *Node) warn(what string, err error) {
	if err != nil {
		n.cfg.Logger.Warn("stopping is not clean", "action", what, "error", err)
	}
}

// close takes down what was opened, last first.
func (n *Node) close() {
	if n.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		n.warn("close the cluster", n.cluster.Close(ctx))
	}
	for i := len(n.closers) - 1; i >= 0; i-- {
		n.closers[i]()
	}
}

// Run works until ctx ends or something fatal happens: a failing disk under the log, a log this version cannot follow,
// or this node's removal. It returns nil only for the end of ctx.
func (n *Node) Run(ctx context.Context) error {
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, s := range n.servers {
		wg.Go(func() { s.run(cancel) })
	}
	wg.Go(func() {
		if err := n.cluster.Run(run, n.lead); err != nil && run.Err() == nil {
			cancel(fmt.Errorf("cluster: %w", err))
		}
	})
	wg.Go(func() { n.work(run, cancel) })
	wg.Go(func() { n.introduce(run, cancel) })
	wg.Go(func() { n.watch(run, cancel) })
	wg.Go(func() { n.mind(run, cancel) })
	n.cfg.Logger.Info("node is running", "version", Version, "engine", n.engine)

	<-run.Done()
	n.stop()
	wg.Wait()
	n.close()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(run)
}

// stop gives up leadership first, so that the others go on at once, then lets requests under way end.
func (n *Node) stop() {
	n.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if n.cluster.IsLeader() && len(n.cluster.Members()) > 1 {
		n.warn("hand over leadership", n.cluster.TransferLeadership(ctx))
	}
	var wg sync.WaitGroup
	for _, s := range append(n.servers, server{name: "ingress", http: n.ingress}) {
		wg.Go(func() {
			drain, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			if err := s.http.Shutdown(drain); err != nil {
				n.warn("close connections of "+s.name, s.http.Close())
			}
		})
	}
	wg.Wait()
}

// lead is the leader's role: membership and judgement, for as long as this node leads in this term.
func (n *Node) lead(ctx context.Context, term uint64) {
	var wg sync.WaitGroup
	wg.Go(func() { n.cluster.ManageMembers(ctx, n.desired, n.fsm.Changed) })
	wg.Go(func() {
		reconcile.NewLoop(reconcile.Config{Node: n.ID(), Term: term, Replica: n.fsm, Proposer: n.cluster, Silence: n.silence,
			Inventory: n.inventoryOf, Full: n.cfg.FullPass, Logger: n.cfg.Logger.With("term", term)}).Run(ctx)
	})
	wg.Wait()
}

func (n *Node) desired() []cluster.DesiredMember {
	var out []cluster.DesiredMember
	for node := range n.fsm.State().Nodes() {
		out = append(out, cluster.DesiredMember{ID: node.ID, Addr: node.ClusterAddr})
	}
	return out
}

// silence says for how long each member of the Raft group has been without contact, as this leader has seen it.
func (n *Node) silence() map[string]time.Duration {
	health := n.cluster.PeerHealth()
	out := map[string]time.Duration{}
	for _, m := range n.cluster.Members() {
		out[m.ID] = health[m.ID]
	}
	return out
}

func (n *Node) voters() int {
	count := 0
	for _, m := range n.cluster.Members() {
		if m.Voter {
			count++
		}
	}
	return count
}
