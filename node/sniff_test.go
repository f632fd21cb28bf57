package node

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"kontiki/pki"
)

// pipes is a listener whose connections come from wherever the test says.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

func (p *pipes) connect(ip string) net.Conn {
	here, there := net.Pipe()
	p.conns <- from{there, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
	return here
}

func TestPlainHTTPIsForThisMachineOnly(t *testing.T) {
	ca, err := pki.NewCA("c")
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := ca.Issue("n1", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	l := sniff(p, bundle.APITLS())
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	for ip, want := range map[string]int{"127.0.0.1": 200, "::1": 200, "10.1.2.3": 403} {
		conn := p.connect(ip)
		go func() {
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n")
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", ip, err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != want || want == 403 && (err != nil || !strings.Contains(string(body), `"code":"forbidden"`)) {
			t.Errorf("%s: %d %s %v", ip, resp.StatusCode, body, err)
		}
		_ = conn.Close()
	}
}
