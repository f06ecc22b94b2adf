package bgp

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// At the end all that we have announced is announced again with GRACEFUL_SHUTDOWN, besides what communities it has, and then the
// sessions end.
func TestFarewell(t *testing.T) {
	shut := []byte{0xff, 0xff, 0, 0}
	for _, c := range []struct {
		as    uint32
		local bool // LOCAL_PREF 0
	}{{65003, false}, {65001, true}} {
		n := newStarWith(t, func(cfg *Config) { cfg.Farewell = 300 * time.Millisecond },
			"169.254.1.2", "169.254.1.1", 65002, "169.254.2.2", "169.254.2.1", c.as)
		n.first.send(updateOf([]byte{24, 10, 7, 0}, []byte{0x40, 1, 1, 0}, aspath(65002), attrBytes(0x40, 3, 169, 254, 1, 2), attrBytes(0xc0, 8, 0, 1, 0, 2)))
		n.r1.wantFeed("10.7.0.0/24 via 169.254.1.2")
		n.r1.originate("10.9.0.0/24")
		hear := func() (nlri, communities []byte, local *attr) {
			for {
				u, _ := parseUpdate(n.second.expect(bgp.BGP_MSG_UPDATE))
				if len(u.nlri) > 0 {
					if a := u.find(bgp.BGP_ATTR_TYPE_COMMUNITIES); a != nil {
						communities = a.value
					}
					return u.nlri, communities, u.find(bgp.BGP_ATTR_TYPE_LOCAL_PREF)
				}
			}
		}
		for range 2 {
			if nlri, comm, _ := hear(); bytes.Contains(comm, shut) {
				t.Errorf("%x is announced with %x before the end", nlri, comm)
			}
		}
		done := make(chan struct{})
		go func() {
			n.r1.stop()
			close(done)
		}()
		for range 2 {
			nlri, comm, local := hear()
			want := shut
			if nlri[2] == 7 {
				want = slices.Concat([]byte{0, 1, 0, 2}, shut)
			}
			if !bytes.Equal(comm, want) {
				t.Errorf("%x is announced with %x at the end, want %x", nlri, comm, want)
			}
			if zero := local != nil && bytes.Equal(local.value, make([]byte, 4)); zero != c.local {
				t.Errorf("LOCAL_PREF is %+v", local)
			}
		}
		if body := n.second.expect(bgp.BGP_MSG_NOTIFICATION); body[0] != bgp.BGP_ERROR_CEASE || body[1] != ceaseShutdown {
			t.Errorf("the session ends with %x", body)
		}
		<-done
	}
}
