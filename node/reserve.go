package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// reservation holds a TCP address that is not listened on yet: others cannot take it, and a load balancer that tries it
// is refused at once and goes on to the next node, instead of being answered from a state that is not caught up.
type reservation struct {
	file *os.File
	addr net.Addr
}

// reserve binds an address without listening.
func reserve(addr string) (*reservation, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	fd, err := bindSocket(tcp)
	if err != nil {
		return nil, err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("getsockname: %w", err), unix.Close(fd))
	}
	r := &reservation{file: os.NewFile(uintptr(fd), "ingress"), addr: tcp}
	switch sa := bound.(type) {
	case *unix.SockaddrInet4:
		r.addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
	case *unix.SockaddrInet6:
		r.addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	}
	return r, nil
}

// bindSocket opens a socket of the address's family; an unspecified address takes both families where there are two.
func bindSocket(tcp *net.TCPAddr) (int, error) {
	if ip4 := tcp.IP.To4(); ip4 != nil {
		return bound(unix.AF_INET, &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(ip4)})
	}
	sa := &unix.SockaddrInet6{Port: tcp.Port}
	copy(sa.Addr[:], tcp.IP.To16())
	fd, err := bound(unix.AF_INET6, sa)
	if errors.Is(err, unix.EAFNOSUPPORT) && (tcp.IP == nil || tcp.IP.IsUnspecified()) {
		return bound(unix.AF_INET, &unix.SockaddrInet4{Port: tcp.Port})
	}
	return fd, err
}

func bound(family int, sa unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// listen begins to accept. The reservation is used up.
func (r *reservation) listen() (net.Listener, error) {
	defer r.close()
	if err := unix.Listen(int(r.file.Fd()), unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", r.addr, err)
	}
	return net.FileListener(r.file)
}

func (r *reservation) close() { _ = r.file.Close() } // closing twice is no harm
