package bgp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack"
	"rlr/hoststack/hoststacktest"
)

// rawPeer is a neighbour made of bytes: it says what a test wants it to say.
type rawPeer struct {
	t    *testing.T
	conn net.Conn
}

// rawSite is a router r1 with one neighbour raw, AS 65002, whose node is the test's.
func rawSite(t *testing.T, remote, local string, change func(*Config)) (*testRouter, *hoststacktest.Node, *hoststacktest.Link) {
	t.Helper()
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("raw")
	link := n.Connect(n1, "tun0", addrs(local), n2, "tun1", addrs(remote))
	c := Config{AS: 65001, RouterID: a("10.1.0.1"), Neighbors: []Neighbor{
		{Name: "raw", Address: a(remote), Interface: "tun0", AS: 65002, Families: []Family{IPv4, IPv6}, Passive: true},
	}}
	if a(remote).Is4() {
		c.Neighbors[0].NextHop6 = a("fd00::1")
	}
	if change != nil {
		change(&c)
	}
	return newRouter(t, n1, "r1", c), n2, link
}

func dialRaw(t *testing.T, node *hoststacktest.Node, remote string) *rawPeer {
	t.Helper()
	return dialRawOn(t, node, "tun1", remote)
}

func dialRawOn(t *testing.T, node *hoststacktest.Node, nic, remote string) *rawPeer {
	t.Helper()
	p := &rawPeer{t: t}
	eventually(t, 5*time.Second, func() string {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn, err := node.Dial(ctx, hoststack.Endpoints{Interface: nic, Remote: netip.AddrPortFrom(a(remote), 179)})
		if err != nil {
			return err.Error()
		}
		p.conn = conn
		return ""
	})
	t.Cleanup(func() { p.conn.Close() })
	return p
}

func rawOpen(as uint32, id string, caps ...bgp.ParameterCapabilityInterface) []byte {
	caps = append(caps, bgp.NewCapFourOctetASNumber(as))
	m, err := bgp.NewBGPOpenMessage(uint16(as), 30, a(id), []bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(caps)})
	if err != nil {
		panic(err)
	}
	b, err := m.Serialize()
	if err != nil {
		panic(err)
	}
	return b
}

func bothFamilies() []bgp.ParameterCapabilityInterface {
	return []bgp.ParameterCapabilityInterface{
		bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapMultiProtocol(bgp.RF_IPv6_UC), bgp.NewCapRouteRefresh(),
		bgp.NewCapExtendedNexthop([]*bgp.CapExtendedNexthopTuple{bgp.NewCapExtendedNexthopTuple(bgp.RF_IPv4_UC, bgp.AFI_IP6)}),
	}
}

func message(typ uint8, body []byte) []byte {
	b := make([]byte, headerLen, headerLen+len(body))
	for i := range 16 {
		b[i] = 0xff
	}
	binary.BigEndian.PutUint16(b[16:], uint16(headerLen+len(body)))
	b[18] = typ
	return append(b, body...)
}

var keepalive = message(bgp.BGP_MSG_KEEPALIVE, nil)

func (p *rawPeer) send(b []byte) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatalf("raw peer writes: %v", err)
	}
}

// read returns the next message's type and body; an error at the end.
func (p *rawPeer) read(within time.Duration) (uint8, []byte, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(within))
	h := make([]byte, headerLen)
	if _, err := io.ReadFull(p.conn, h); err != nil {
		return 0, nil, err
	}
	body := make([]byte, int(binary.BigEndian.Uint16(h[16:]))-headerLen)
	_, err := io.ReadFull(p.conn, body)
	return h[18], body, err
}

// expect reads until a message of a type.
func (p *rawPeer) expect(typ uint8) []byte {
	p.t.Helper()
	for {
		got, body, err := p.read(10 * time.Second)
		if err != nil {
			p.t.Fatalf("waiting for a message of type %d: %v", typ, err)
		}
		if got == typ {
			return body
		}
	}
}

// establish does the handshake.
func (p *rawPeer) establish() {
	p.t.Helper()
	p.establishFrom(65002, "10.2.0.1")
}

// establishFrom does it as another speaker, perhaps with more capabilities.
func (p *rawPeer) establishFrom(as uint32, id string, more ...bgp.ParameterCapabilityInterface) {
	p.t.Helper()
	p.send(rawOpen(as, id, append(bothFamilies(), more...)...))
	p.expect(bgp.BGP_MSG_OPEN)
	p.send(keepalive)
	p.expect(bgp.BGP_MSG_KEEPALIVE)
}

// reach is an UPDATE that announces a prefix by MP_REACH_NLRI with these next hop bytes.
func reach(afi uint16, nextHop []byte, prefix string) []byte {
	return announce(afi, nextHop, prefix, aspath(65002))
}

// aspath is the attribute with one sequence, of 4-byte numbers.
func aspath(as ...uint32) []byte {
	if len(as) == 0 {
		return []byte{0x40, 2, 0}
	}
	b := []byte{0x40, 2, byte(2 + 4*len(as)), 2, byte(len(as))}
	for _, n := range as {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

// announce is reach with these attributes besides ORIGIN.
func announce(afi uint16, nextHop []byte, prefix string, others ...[]byte) []byte {
	pfx := netip.MustParsePrefix(prefix)
	mp := binary.BigEndian.AppendUint16(nil, afi)
	mp = append(mp, 1, byte(len(nextHop)))
	mp = append(mp, nextHop...)
	mp = append(mp, 0, byte(pfx.Bits()))
	mp = append(mp, pfx.Addr().AsSlice()[:(pfx.Bits()+7)/8]...)
	attrs := slices.Concat(append([][]byte{{0x40, 1, 1, 0}}, others...)...) // ORIGIN igp first
	attrs = append(attrs, 0x90, 14)
	attrs = binary.BigEndian.AppendUint16(attrs, uint16(len(mp)))
	attrs = append(attrs, mp...)
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
	return message(bgp.BGP_MSG_UPDATE, append(body, attrs...))
}

func b16(s string) []byte { return a(s).AsSlice() }

func b4(s string) []byte { return a(s).AsSlice() }

// A rebooted peer connects with its old session still up on our side, in all states that the old one may be in.
func TestNewConnection(t *testing.T) {
	t.Run("while established", func(t *testing.T) {
		r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
		start(t, r1)
		old := dialRaw(t, node, "169.254.0.1")
		old.establish()
		r1.established()
		fresh := dialRaw(t, node, "169.254.0.1")
		fresh.send(rawOpen(65002, "10.2.0.1", bothFamilies()...))
		old.expect(bgp.BGP_MSG_KEEPALIVE) // the probe
		// The old one is alive: the new one loses (RFC 4271 §6.8).
		done := make(chan struct{})
		defer func() { <-done }()
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			defer close(done)
			for {
				_, _ = old.conn.Write(keepalive)
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		}()
		body := fresh.expect(bgp.BGP_MSG_NOTIFICATION)
		if body[0] != bgp.BGP_ERROR_CEASE || body[1] != ceaseCollision {
			t.Errorf("the new connection ends with %d/%d", body[0], body[1])
		}
		if s := r1.session("raw"); s.State != Established || s.Flaps != 0 {
			t.Errorf("the session is %s, %d flaps", s.State, s.Flaps)
		}
	})
	t.Run("in OpenConfirm, the same side's", func(t *testing.T) {
		r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
		start(t, r1)
		old := dialRaw(t, node, "169.254.0.1")
		old.send(rawOpen(65002, "10.2.0.1", bothFamilies()...))
		old.expect(bgp.BGP_MSG_KEEPALIVE)
		fresh := dialRaw(t, node, "169.254.0.1")
		fresh.establish()
		r1.established()
		if s := r1.session("raw"); s.Flaps != 0 || s.LastError != "" {
			t.Errorf("%d flaps, %q", s.Flaps, s.LastError)
		}
		fresh.send(reach(bgp.AFI_IP, b4("169.254.0.2"), "10.0.2.0/24"))
		r1.wantFeed("10.0.2.0/24 via 169.254.0.2")
	})
	t.Run("in OpenConfirm, another OPEN", func(t *testing.T) {
		r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
		start(t, r1)
		old := dialRaw(t, node, "169.254.0.1")
		old.send(rawOpen(65002, "10.2.0.1", bothFamilies()...))
		old.expect(bgp.BGP_MSG_KEEPALIVE)
		fresh := dialRaw(t, node, "169.254.0.1")
		fresh.send(rawOpen(65002, "10.2.0.2", bothFamilies()...))
		fresh.expect(bgp.BGP_MSG_OPEN)
		fresh.send(keepalive)
		r1.established()
	})
	t.Run("silent ones", func(t *testing.T) {
		r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", nil)
		start(t, r1)
		for range 50 {
			dialRaw(t, node, "169.254.0.1")
		}
		eventually(t, 5*time.Second, func() string {
			if n := r1.node.Conns(); n > 1 {
				return fmt.Sprintf("%d connections are held", n)
			}
			return ""
		})
		dialRaw(t, node, "169.254.0.1").establish()
		r1.established()
	})
}

func TestStrangers(t *testing.T) {
	for _, c := range []struct {
		remote, local, stranger string
		change                  func(*Neighbor)
	}{
		{"169.254.0.2", "169.254.0.1", "169.254.0.2", func(n *Neighbor) { n.Address = a("169.254.0.9") }},
		{"fe80::2", "fe80::1", "fe80::2%tun0", func(n *Neighbor) { n.LocalAddress = a("fe80::7") }},
		{"fe80::2", "fe80::1", "fe80::2%tun0", func(n *Neighbor) { n.Interface = "tun9" }},
	} {
		t.Run(c.stranger, func(t *testing.T) {
			r1, node, _ := rawSite(t, c.remote, c.local, func(cfg *Config) { c.change(&cfg.Neighbors[0]) })
			start(t, r1)
			p := dialRaw(t, node, c.local)
			if _, _, err := p.read(5 * time.Second); !errors.Is(err, io.EOF) {
				t.Errorf("a stranger reads %v", err)
			}
			if total, last := r1.Strangers(); total != 1 || last != a(c.stranger) {
				t.Errorf("strangers: %d, last %s", total, last)
			}
		})
	}
}

// Whatever neighbours send, the speaker lives, and they can come back.
func TestGarbage(t *testing.T) {
	const neighbors = 8
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("raw")
	c := Config{AS: 65001, RouterID: a("10.1.0.1")}
	for i := range neighbors {
		x, y := netip.AddrFrom4([4]byte{169, 254, byte(i), 1}), netip.AddrFrom4([4]byte{169, 254, byte(i), 2})
		n.Connect(n1, fmt.Sprint("tun", i), []netip.Addr{x}, n2, fmt.Sprint("tun", i), []netip.Addr{y})
		c.Neighbors = append(c.Neighbors, Neighbor{
			Name: fmt.Sprint("n", i), Address: y, AS: 65002, Passive: true, Families: []Family{IPv4, IPv6}, NextHop6: a("fd00::1"),
		})
	}
	r1 := newRouter(t, n1, "r1", c)
	start(t, r1)
	var wg sync.WaitGroup
	for i := range neighbors {
		wg.Go(func() { garbage(t, r1, n2, i) })
	}
	wg.Wait()
	for i := range neighbors {
		p := dialRawOn(t, n2, fmt.Sprint("tun", i), fmt.Sprintf("169.254.%d.1", i))
		p.establish()
	}
	r1.established()
}

// garbage is one neighbour's: mad before the session, and in it.
func garbage(t *testing.T, r1 *testRouter, node *hoststacktest.Node, i int) {
	rng := rand.New(rand.NewChaCha8([32]byte{byte(i)}))
	mutate := func(b []byte) []byte {
		b = slices.Clone(b)
		for range 1 + rng.IntN(4) {
			b[16+rng.IntN(len(b)-16)] = byte(rng.Uint32())
		}
		return b
	}
	dial := func() *rawPeer { return dialRawOn(t, node, fmt.Sprint("tun", i), fmt.Sprintf("169.254.%d.1", i)) }
	open := rawOpen(65002, "10.2.0.1", bothFamilies()...)
	huge := message(bgp.BGP_MSG_UPDATE, nil)
	huge[16], huge[17] = 0xff, 0xff
	for k, b := range [][]byte{
		{},
		{0},
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), keepalive, huge, message(bgp.BGP_MSG_OPEN, nil), message(bgp.BGP_MSG_OPEN, make([]byte, 9)),
		message(bgp.BGP_MSG_NOTIFICATION, nil), message(bgp.BGP_MSG_NOTIFICATION, []byte{6, 2, 200, 'x'}), message(77, nil), open[:20], mutate(open), mutate(open),
	} {
		p := dial()
		_, _ = p.conn.Write(b)
		for (k+i)%2 == 0 {
			if _, _, err := p.read(50 * time.Millisecond); err != nil {
				break
			}
		}
		p.conn.Close()
	}
	p := dial()
	p.establish()
	good := reach(bgp.AFI_IP6, b16("fd00::2"), "fd00:1::/64")
	for range 50 {
		if _, err := p.conn.Write(mutate(good)); err != nil {
			break
		}
	}
	p.conn.Close()
}

// A neighbour that stops reading holds nobody up: our keepalives fill its window, and the hold timer still works.
func TestSilentAfterOpen(t *testing.T) {
	r1, node, _ := rawSite(t, "169.254.0.2", "169.254.0.1", func(c *Config) { c.Neighbors[0].HoldTime = 3 * time.Second })
	start(t, r1)
	p := dialRaw(t, node, "169.254.0.1")
	p.establish()
	r1.established()
	eventually(t, 6*time.Second, func() string {
		if s := r1.session("raw"); s.LastError != "Hold Timer Expired (sent)" {
			return fmt.Sprintf("last error is %q", s.LastError)
		}
		return ""
	})
}
