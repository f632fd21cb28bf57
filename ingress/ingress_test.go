package ingress

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"kontiki/errs"
	"kontiki/fsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shop = "shop.kontiki.localhost"

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestThisNodeServesWhatItHas(t *testing.T) {
	w := newWorld(t, "n1", "n2")
	id := w.deploy("shop", fsm.PhaseActive, "n1", "n2")
	n := w.nodes("n1", "n2")
	n["n1"].site.add(id)
	n["n2"].site.add(id)
	for range 10 {
		res := n["n1"].get(t, shop)
		if got := body(t, res); got != id || res.Header.Get(HeaderNode) != "n1" || res.Header.Get(HeaderRelease) != id {
			t.Fatalf("answered %q with %v", got, res.Header)
		}
	}
	if n["n2"].site.count() != 0 {
		t.Error("another node was asked")
	}
}

func TestRelayKeepsPathQueryHostAndForwardedHeaders(t *testing.T) {
	w := newWorld(t, "n1", "n2")
	id := w.deploy("shop", fsm.PhaseActive, "n2")
	n := w.nodes("n1", "n2")
	n["n2"].site.add(id)
	const uri = "/a//../b%2Fc//d?x=1;y=%zz&z"
	res := n["n1"].get(t, shop, func(r *http.Request) {
		r.URL.Opaque = uri
		r.Header.Set("X-Forwarded-For", "6.6.6.6")
		r.Header.Set("Accept-Encoding", "br")
	})
	if got := body(t, res); got != id || res.Header.Get(HeaderNode) != "n2" || len(res.Header.Values(HeaderRelease)) != 1 {
		t.Fatalf("answered %d %q with %v", res.StatusCode, got, res.Header)
	}
	r := n["n2"].site.last()
	if r.RequestURI != uri || r.Host != shop {
		t.Errorf("the instance was asked for %q on %q", r.RequestURI, r.Host)
	}
	if got := r.Header; got.Get("X-Forwarded-For") != "127.0.0.1" || got.Get("X-Forwarded-Host") != shop ||
		got.Get("X-Forwarded-Proto") != "http" || got.Get("Accept-Encoding") != "br" {
		t.Errorf("the instance saw %v", got)
	}
	if n["n2"].Stats().Relayed != 1 {
		t.Errorf("stats are %+v", n["n2"].Stats())
	}
}

func TestUsersCannotSetKontikiHeaders(t *testing.T) {
	w := newWorld(t, "n1", "n2")
	old := w.deploy("shop", fsm.PhaseActive, "n1", "n2")
	local := w.deploy("shop", fsm.PhaseActive, "n1")
	remote := w.deploy("blog", fsm.PhaseActive, "n2")
	n := w.nodes("n1", "n2")
	for _, id := range []string{old, local} {
		n["n1"].site.add(id)
	}
	n["n2"].site.add(remote)
	for host, asked := range map[string]*site{shop: n["n1"].site, "blog.kontiki.localhost": n["n2"].site} {
		res := n["n1"].get(t, host, func(r *http.Request) {
			r.Header.Set("kontiki-release", old)
			r.Header.Set("Kontiki-Project", "x")
			r.Header.Set("Kontiki-Probe", "guess")
			r.Header.Set("Kontiki-Host", "evil")
			r.Header.Set("Connection", "Kontiki-Release, Kontiki-Host, Kontiki-Project, X-Forwarded-For")
		})
		if got := body(t, res); got != local && got != remote {
			t.Errorf("%s answered %d %q", host, res.StatusCode, got)
		}
		for name := range asked.last().Header {
			if strings.HasPrefix(name, "Kontiki") {
				t.Errorf("%s: the instance saw %s", host, name)
			}
		}
		if asked.last().Header.Get("X-Forwarded-For") != "127.0.0.1" {
			t.Errorf("%s: the instance saw %v", host, asked.last().Header)
		}
	}
}

func TestRetryOnAnotherInstance(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3")
	id := w.deploy("shop", fsm.PhaseActive, "n1", "n2", "n3")
	n := w.nodes("n1", "n2", "n3")
	n["n3"].site.add(id) // n1 has lost it
	n["n2"].peers.Close()
	for range 6 {
		res := n["n1"].get(t, shop)
		if got := body(t, res); got != id || res.Header.Get(HeaderNode) != "n3" ||
			len(res.Header.Values(HeaderNode)) != 1 || len(res.Header.Values(HeaderRelease)) != 1 ||
			res.Header.Get("Cache-Control") != "" {
			t.Fatalf("answered %d %q with %v", res.StatusCode, got, res.Header)
		}
	}
	if s := n["n1"].Stats(); s.Retries > 2 || s.Retries == 0 || s.Failures != 0 || s.Requests != 6 {
		t.Errorf("stats are %+v: those that failed are to be tried last", s)
	}
}

func TestRequestsThatChangeSomethingAreSentOnce(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3")
	w.deploy("shop", fsm.PhaseActive, "n1", "n2", "n3")
	n := w.nodes("n1", "n2", "n3")
	for _, edit := range []func(*http.Request){
		func(r *http.Request) { r.Method = http.MethodPost },
		func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 },
	} {
		res := n["n1"].get(t, shop, edit)
		if res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("answered %s", res.Status)
		}
	}
	if asked := n["n1"].site.count() + n["n2"].site.count() + n["n3"].site.count(); asked != 2 {
		t.Errorf("%d instances were asked for 2 requests", asked)
	}
}

func TestAtMostThreeInstancesAreTried(t *testing.T) {
	ids := []string{"n1", "n2", "n3", "n4", "n5"}
	w := newWorld(t, ids...)
	w.deploy("shop", fsm.PhaseActive, ids...)
	n := w.nodes(ids...)
	res := n["n1"].get(t, shop)
	var problem struct {
		Error struct {
			Code, Message, Hint string
			RequestID           string `json:"request_id"`
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&problem); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" ||
		problem.Error.Code != string(errs.Unavailable) || problem.Error.RequestID == "" || problem.Error.Hint == "" {
		t.Errorf("answered %s %+v", res.Status, problem)
	}
	if got := res.Header.Get(HeaderRelease); got != "" {
		t.Errorf("an error names release %q", got)
	}
	asked := 0
	for _, id := range ids {
		asked += n[id].site.count()
	}
	if asked != 3 || n["n1"].Stats().Failures != 1 {
		t.Errorf("%d instances were asked, stats %+v", asked, n["n1"].Stats())
	}
}

func TestAnUnknownPeerIsNoTry(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3", "n4")
	id := w.deploy("shop", fsm.PhaseActive, "n2", "n3", "n4")
	n := w.nodes("n1", "n4")
	n["n4"].site.add(id)
	res := n["n1"].get(t, shop, func(r *http.Request) { r.Method = http.MethodDelete })
	if res.StatusCode != http.StatusOK {
		t.Errorf("answered %s", res.Status)
	}
}

func TestAPeerThatDoesNotAnswerIsLeft(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3")
	id := w.deploy("shop", fsm.PhaseActive, "n2", "n3")
	n := w.nodes("n1", "n2", "n3")
	n["n1"].patience = 50 * time.Millisecond
	n["n2"].site.add(id)
	n["n3"].site.add(id)
	left := make(chan struct{})
	n["n2"].site.handle = func(_ http.ResponseWriter, r *http.Request, _ string) {
		<-r.Context().Done()
		select {
		case left <- struct{}{}:
		case <-t.Context().Done():
		}
	}
	for range 2 { // one of two begins with n2
		if got := body(t, n["n1"].get(t, shop)); got != id {
			t.Errorf("answered %q", got)
		}
	}
	<-left
}

func TestAnAnswerThatBrokeOffIsNotContinuedByAnother(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3")
	id := w.deploy("shop", fsm.PhaseActive, "n2", "n3")
	n := w.nodes("n1", "n2", "n3")
	half := strings.Repeat("x", 50_000)
	for _, name := range []string{"n2", "n3"} {
		n[name].site.add(id)
		n[name].site.handle = func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("Content-Length", "100000")
			fmt.Fprint(w, half)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	b, err := io.ReadAll(n["n1"].get(t, shop).Body)
	if string(b) != half || err == nil {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	if n["n1"].Stats().Retries != 0 {
		t.Errorf("stats are %+v", n["n1"].Stats())
	}
}

func TestSuspectsAreTriedLastForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{NodeID: "n1"})
		rt := Route{Deployment: "a", Instances: []string{"n1", "n2", "n3"}, Ready: 2}
		g.suspects.add(suspect{node: "n1", deployment: "a"}, time.Now().Add(suspectFor))
		g.suspects.add(suspect{node: "n2"}, time.Now().Add(suspectFor))
		if got := g.order(rt); !slices.Equal(got, []string{"n3", "n1", "n2"}) {
			t.Errorf("order is %v", got)
		}
		rt.Deployment = "b"
		if got := g.order(rt); !slices.Equal(got, []string{"n1", "n3", "n2"}) {
			t.Errorf("order for another release is %v", got)
		}
		time.Sleep(suspectFor + time.Second)
		if got := g.order(rt); !slices.Equal(got, []string{"n1", "n2", "n3"}) {
			t.Errorf("order after a while is %v", got)
		}
		if g.suspects.count.Load() != 0 {
			t.Error("suspects are remembered for ever")
		}
	})
}

func TestInstancesTakeTurns(t *testing.T) {
	g := New(Config{NodeID: "n9"})
	first := map[string]int{}
	for range 300 {
		first[g.order(Route{Instances: []string{"n1", "n2", "n3", "n4"}, Ready: 3})[0]]++
	}
	if first["n1"] != 100 || first["n2"] != 100 || first["n3"] != 100 {
		t.Errorf("first were %v", first)
	}
}

func TestAHostThatLeadsNowhere(t *testing.T) {
	w := newWorld(t, "n1")
	w.deploy("new", fsm.PhaseCopyingFiles, "n1")
	n := w.nodes("n1")["n1"]
	res := n.get(t, "nobody.example")
	if got := body(t, res); res.StatusCode != http.StatusNotFound || !strings.Contains(got, "nobody.example") ||
		!strings.Contains(got, `"code":"not_found"`) || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("answered %s %s", res.Status, got)
	}
	res = n.get(t, "new.kontiki.localhost", func(r *http.Request) { r.Header.Set("Accept", "text/html,*/*") })
	if got := body(t, res); !strings.Contains(got, "project &#34;new&#34;") || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		t.Errorf("answered %s %s", res.Status, got)
	}
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "<script>alert(1)</script>" + strings.Repeat("x", 500)
	r.Header.Set("Accept", "text/html")
	n.Handler().ServeHTTP(rec, r)
	if got := rec.Body.String(); strings.Contains(got, "<script>") || len(got) > 2000 {
		t.Errorf("answered %s", got)
	}
	if s := n.Stats(); s.Unknown != 3 || s.Failures != 0 {
		t.Errorf("stats are %+v", s)
	}
}

func TestRelayRefusesWhatNoIngressSends(t *testing.T) {
	w := newWorld(t, "n1")
	id := w.deploy("shop", fsm.PhaseActive, "n1")
	n := w.nodes("n1")["n1"]
	n.site.add(id)
	for _, h := range []map[string]string{
		{},
		{HeaderRelease: id, headerProject: "shop"},
		{HeaderRelease: id, headerHost: shop},
		{HeaderRelease: "../x", headerProject: "shop", headerHost: shop},
		{HeaderRelease: id, headerProject: "../x", headerHost: shop},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		for k, v := range h {
			r.Header.Set(k, v)
		}
		rec := httptest.NewRecorder()
		n.RelayHandler().ServeHTTP(rec, r)
		if rec.Code != http.StatusBadRequest || IsRelayed(r) != (h[headerHost] != "") {
			t.Errorf("%v: answered %d", h, rec.Code)
		}
	}
	if n.site.count() != 0 {
		t.Error("the instance was asked")
	}
}

func TestUpgradePassesThroughARelay(t *testing.T) {
	w := newWorld(t, "n1", "n2")
	id := w.deploy("shop", fsm.PhaseActive, "n2")
	n := w.nodes("n1", "n2")
	n["n2"].site.add(id)
	n["n2"].site.handle = echo
	conn, err := net.Dial("tcp", n["n1"].users.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", shop)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answered %v, %v", res, err)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := in.ReadString('\n'); line != "hello\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

// echo switches protocols and sends back one line.
func echo(w http.ResponseWriter, _ *http.Request, _ string) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nKontiki-Release: "+
		w.Header().Get(HeaderRelease)+"\r\n\r\n")
	_ = rw.Flush()
	line, _ := rw.ReadString('\n')
	fmt.Fprint(rw, line)
	_ = rw.Flush()
}

func TestNoRequestFailsWhileTheActiveDeploymentSwitches(t *testing.T) {
	w := newWorld(t, "n1", "n2", "n3")
	first := w.deploy("shop", fsm.PhaseActive, "n1", "n2", "n3")
	n := w.nodes("n1", "n2", "n3")
	add := func(id string, where ...string) {
		for _, name := range where {
			n[name].site.add(id)
		}
	}
	add(first, "n1", "n2", "n3")
	var known sync.Map
	known.Store(first, true)
	served, stop := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for {
				res := n[fmt.Sprintf("n%d", i%3+1)].get(t, shop)
				got := body(t, res)
				if _, ok := known.Load(got); res.StatusCode != http.StatusOK || !ok || res.Header.Get(HeaderRelease) != got {
					t.Errorf("answered %s %q", res.Status, got)
				}
				select {
				case served <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for i := range 20 {
		targets := [][]string{{"n1", "n2"}, {"n3"}, {"n1", "n2", "n3"}}[i%3]
		id := w.deploy("shop", fsm.PhaseHealthCheck, targets...)
		add(id, targets...)
		known.Store(id, true)
		for _, node := range targets {
			w.apply(fsm.StepReport{StepKey: fsm.StepKey{Deployment: id, Phase: fsm.PhaseHealthCheck, Attempt: 1, Node: node}})
		}
		for range 50 {
			<-served
		}
	}
	close(stop)
	clients.Wait()
	for id := range n {
		if s := n[id].Stats(); s.Failures != 0 || s.Retries != 0 {
			t.Errorf("%s: stats are %+v", id, s)
		}
	}
}
