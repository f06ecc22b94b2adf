package lab

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/netip"
)

// Ports that routers listen at are found by binding them. They are taken below the kernel's ephemeral range (from 32768), so
// that between our close and the router's bind no outgoing connection of somebody else gets them; a random place to begin
// keeps labs apart that start at the same time.
const (
	firstPort = 20000
	lastPort  = 32000
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// allocatePorts returns n free UDP ports of 127.0.0.1, held until release is called.
func allocatePorts(n int) (ports []netip.AddrPort, release func(), err error) {
	var held []*net.UDPConn
	release = func() {
		for _, c := range held {
			c.Close()
		}
	}
	span := lastPort - firstPort
	begin := mrand.IntN(span)
	for i := 0; i < span && len(ports) < n; i++ {
		a := netip.AddrPortFrom(loopback, uint16(firstPort+(begin+i)%span))
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a))
		if err != nil {
			continue // somebody has it
		}
		held = append(held, c)
		ports = append(ports, a)
	}
	if len(ports) < n {
		release()
		return nil, nil, fmt.Errorf("no %d free UDP ports between %d and %d on %s", n, firstPort, lastPort, loopback)
	}
	return ports, release, nil
}

// bindRelay opens the two sockets of a relay.
func bindRelay() (sides [2]*net.UDPConn, err error) {
	for i := range sides {
		sides[i], err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
		if err != nil {
			if i == 1 {
				sides[0].Close()
			}
			return sides, fmt.Errorf("relay: %w", err)
		}
	}
	return sides, nil
}

// keyPair is a WireGuard key pair in base64 (X25519, RFC 7748 §6.1).
type keyPair struct{ private, public string }

func newKeyPair() (keyPair, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("make a key: %w", err)
	}
	private := k.Bytes()
	private[0] &= 248 // clamped as wg genkey stores it; the public key is the same
	private[31] = private[31]&127 | 64
	return keyPair{
		private: base64.StdEncoding.EncodeToString(private),
		public:  base64.StdEncoding.EncodeToString(k.PublicKey().Bytes()),
	}, nil
}

func newPresharedKey() string {
	var b [32]byte
	rand.Read(b[:]) //nolint:errcheck // never fails, see its documentation
	return base64.StdEncoding.EncodeToString(b[:])
}
