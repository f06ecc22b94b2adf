package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"rlr/hoststack/hoststacktest"
)

// Many neighbours announce prefixes of both families, and each is told of all but its own, once. RLR_LONG has fifty of them.
func TestManyNeighbors(t *testing.T) {
	neighbors, prefixes := 12, 200
	if os.Getenv("RLR_LONG") != "" {
		neighbors, prefixes = 50, 1100
	}
	n := hoststacktest.New()
	n1, n2 := n.Node("r1"), n.Node("raw")
	c := Config{AS: 65000, RouterID: a("10.0.0.1")}
	for i := range neighbors {
		x, y := netip.AddrFrom4([4]byte{169, 254, byte(i), 1}), netip.AddrFrom4([4]byte{169, 254, byte(i), 2})
		n.Connect(n1, fmt.Sprint("tun", i), []netip.Addr{x}, n2, fmt.Sprint("tun", i), []netip.Addr{y})
		c.Neighbors = append(c.Neighbors, Neighbor{
			Name: fmt.Sprint("n", i), Address: y, AS: uint32(65001 + i), Passive: true, Families: both,
			NextHop6: netip.AddrFrom16([16]byte{0xfd, 15: byte(i + 1)}), // a different one for each
		})
	}
	r1 := newRouter(t, n1, "r1", c)
	start(t, r1)
	var heard atomic.Int64
	var work sync.WaitGroup
	var peers []*rawPeer
	for i := range neighbors {
		p := dialRawOn(t, n2, fmt.Sprint("tun", i), fmt.Sprintf("169.254.%d.1", i))
		p.establishFrom(uint32(65001+i), fmt.Sprintf("10.1.0.%d", i+1))
		peers = append(peers, p)
		work.Go(func() { // until the connection ends, which is when the router does
			for {
				typ, body, err := p.read(time.Hour)
				if err != nil {
					return
				}
				if typ == bgp.BGP_MSG_UPDATE {
					heard.Add(int64(countRoutes(body)))
				}
			}
		})
	}
	t.Cleanup(func() {
		for _, p := range peers {
			_ = p.conn.Close()
		}
		work.Wait()
	})
	r1.established()
	begun := time.Now()
	for i, p := range peers {
		work.Go(func() { announceMany(p, i, prefixes) })
	}
	total := neighbors * prefixes * 2
	eventually(t, 100*time.Second, func() string {
		r1.feed.mu.Lock()
		defer r1.feed.mu.Unlock()
		if n := len(r1.feed.routes); n != total {
			return fmt.Sprint(n, " routes")
		}
		return ""
	})
	fed := time.Since(begun)
	want := int64(total) * int64(neighbors-1)
	eventually(t, 100*time.Second, func() string {
		if n := heard.Load(); n < want {
			return fmt.Sprintf("%d of %d announcements", n, want)
		}
		return ""
	})
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d routes in the feed after %v, %d announcements heard after %v, heap %d MB with the neighbors", total, fed, want, time.Since(begun), m.HeapAlloc>>20)
	for _, s := range r1.Sessions() {
		if s.Advertised != uint64(total-2*prefixes) {
			t.Errorf("%s: advertised %d, want %d", s.Neighbor.Name, s.Advertised, total-2*prefixes)
		}
	}
	if n := heard.Load(); n != want {
		t.Errorf("%d announcements, want %d", n, want)
	}
}

// announceMany announces prefixes of both families, in UPDATEs of a hundred.
func announceMany(p *rawPeer, i, prefixes int) {
	for k := 0; k < prefixes; k += 100 {
		var v4, v6 []byte
		for j := k; j < min(k+100, prefixes); j++ {
			v4 = append(v4, 24, byte(20+i), byte(j>>8), byte(j))
			v6 = append(v6, 48, 0xfd, byte(i), byte(j>>8), byte(j), 0, 0)
		}
		attrs := append([]byte{0x40, 1, 1, 0}, aspath(uint32(65001+i), uint32(70000+k))...)
		a4 := append(append([]byte{}, attrs...), 0x40, 3, 4, 169, 254, byte(i), 2)
		body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(a4)))
		p.send(message(bgp.BGP_MSG_UPDATE, append(append(body, a4...), v4...)))
		mp := append([]byte{0, 2, 1, 16}, b16("fd00::2")...)
		mp = append(append(mp, 0), v6...)
		a6 := append(append([]byte{}, attrs...), 0x90, 14)
		a6 = append(binary.BigEndian.AppendUint16(a6, uint16(len(mp))), mp...)
		p.send(message(bgp.BGP_MSG_UPDATE, append(binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(a6))), a6...)))
	}
}

func countRoutes(body []byte) (n int) {
	u, ok := parseUpdate(body)
	if !ok {
		return 0
	}
	eachRoute(IPv4, u.nlri, 0, func([]byte, pathKey) { n++ })
	if r, ok := u.reach(); ok {
		eachRoute(familyOf(r.family), r.routes, 0, func([]byte, pathKey) { n++ })
	}
	return n
}
