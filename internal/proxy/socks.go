package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Socks is what a SOCKS server (RFC 1928) does with a connection: CONNECT, without authentication, which is for who listens on
// loopback only.
type Socks struct {
	Dial   func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Of RFC 1928.
const (
	socksVersion = 5
	noAuth       = 0
	noMethod     = 0xff
	cmdConnect   = 1
	addressIPv4  = 1
	addressName  = 3
	addressIPv6  = 4
)

// reply is a field REP (RFC 1928 §6).
type reply uint8

const (
	replyOK          reply = 0
	replyFailure     reply = 1
	replyNetwork     reply = 3
	replyHost        reply = 4
	replyRefused     reply = 5
	replyTimeout     reply = 6
	replyCommand     reply = 7
	replyAddressType reply = 8
)

// Open implements Server.Open.
func (s Socks) Open(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if err := greet(conn); err != nil {
		return nil, err
	}
	host, port, code, err := readRequest(conn)
	if err != nil {
		return nil, errors.Join(err, answer(conn, code, nil))
	}
	other, err := s.connect(ctx, host, port)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s port %d: %w", host, port, err), answer(conn, replyFor(err), nil))
	}
	if err := answer(conn, replyOK, other.LocalAddr()); err != nil {
		_ = other.Close()
		return nil, err
	}
	return other, nil
}

// greet agrees on no authentication.
func greet(conn net.Conn) error {
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if head[0] != socksVersion {
		return fmt.Errorf("SOCKS version %d instead of 5", head[0])
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(conn, methods); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	for _, m := range methods {
		if m == noAuth {
			_, err := conn.Write([]byte{socksVersion, noAuth})
			return err
		}
	}
	_, err := conn.Write([]byte{socksVersion, noMethod})
	return errors.Join(errors.New("the client insists on authentication"), err)
}

// readRequest returns the host, an address or a name, and what to answer where there is an error.
func readRequest(conn net.Conn) (host string, port uint16, code reply, err error) {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return "", 0, replyFailure, fmt.Errorf("request: %w", err)
	}
	if head[0] != socksVersion {
		return "", 0, replyFailure, fmt.Errorf("request of version %d", head[0])
	}
	size := 0
	switch head[3] {
	case addressIPv4:
		size = 4
	case addressIPv6:
		size = 16
	case addressName:
		var n [1]byte
		if _, err := io.ReadFull(conn, n[:]); err != nil {
			return "", 0, replyFailure, fmt.Errorf("request: %w", err)
		}
		size = int(n[0])
	default:
		return "", 0, replyAddressType, fmt.Errorf("address of type %d", head[3])
	}
	rest := make([]byte, size+2)
	if _, err := io.ReadFull(conn, rest); err != nil {
		return "", 0, replyFailure, fmt.Errorf("request: %w", err)
	}
	if head[1] != cmdConnect {
		return "", 0, replyCommand, fmt.Errorf("command %d; there is CONNECT only", head[1])
	}
	host = string(rest[:size])
	if head[3] != addressName {
		a, _ := netip.AddrFromSlice(rest[:size])
		host = a.Unmap().String()
	}
	return host, binary.BigEndian.Uint16(rest[size:]), replyOK, nil
}

func (s Socks) connect(ctx context.Context, host string, port uint16) (net.Conn, error) {
	addrs := make([]netip.Addr, 1)
	var err error
	if addrs[0], err = netip.ParseAddr(host); err != nil {
		if addrs, err = s.Lookup(ctx, host); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, a := range addrs {
		conn, err := s.Dial(ctx, netip.AddrPortFrom(a.Unmap(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// replyFor says an error in SOCKS's words.
func replyFor(err error) reply {
	var name *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return replyRefused
	case errors.Is(err, syscall.ENETUNREACH):
		return replyNetwork
	case errors.Is(err, syscall.EHOSTUNREACH), errors.As(err, &name):
		return replyHost
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return replyTimeout
	}
	return replyFailure
}

// answer writes a reply with the address that the connection is made from.
func answer(conn net.Conn, code reply, from net.Addr) error {
	local := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if t, ok := from.(*net.TCPAddr); ok && t.AddrPort().IsValid() {
		local = netip.AddrPortFrom(t.AddrPort().Addr().Unmap().WithZone(""), t.AddrPort().Port())
	}
	typ := byte(addressIPv4)
	if local.Addr().Is6() {
		typ = addressIPv6
	}
	b := append([]byte{socksVersion, byte(code), 0, typ}, local.Addr().AsSlice()...)
	_, err := conn.Write(binary.BigEndian.AppendUint16(b, local.Port()))
	return err
}
