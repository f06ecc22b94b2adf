package bgp

import (
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// A change between a session's OpenConfirm and the moment at which GoBGP notes that it is established may be missed; earlier and
// later ones are not.
func TestMissed(t *testing.T) {
	t0 := time.Now()
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	for name, c := range map[string]struct {
		before, after []int // changes told before and after the session's Established, ms
		lost          bool  // and it ends again at once
		want          bool
	}{
		"nothing":              {},
		"before it confirmed":  {before: []int{50}},
		"while it began":       {before: []int{50, 150}, want: true},
		"told late":            {after: []int{250}, want: true},
		"after it was noted":   {after: []int{350}},
		"but it ended at once": {before: []int{150}, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, p := newMissed(), new(peer)
			m.state(p, bgp.BGP_FSM_OPENSENT, at(0))
			for _, ms := range c.before {
				if ms < 100 {
					m.change(at(ms))
				}
			}
			m.state(p, bgp.BGP_FSM_OPENCONFIRM, at(100))
			for _, ms := range c.before {
				if ms >= 100 {
					m.change(at(ms))
				}
			}
			m.state(p, bgp.BGP_FSM_ESTABLISHED, at(200))
			for _, ms := range c.after {
				m.change(at(ms))
			}
			if c.lost {
				m.state(p, bgp.BGP_FSM_IDLE, at(300))
			}
			if who, wait := m.judge(t0); len(who) > 0 || (wait < 0) != c.lost {
				t.Errorf("at once: %v, wait %v", who, wait)
			}
			who, wait := m.judge(time.Now().Add(missedWait))
			if (len(who) == 1) != c.want || wait >= 0 {
				t.Errorf("%v, wait %v", who, wait)
			}
		})
	}
}
