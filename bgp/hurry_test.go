package bgp

import (
	"testing"
	"time"
)

// A few lost sessions in a row are hurried, one that is lost again and again only now and then, and after a quiet time it is as
// at first.
func TestMayHurry(t *testing.T) {
	var st peerStatus
	now := time.Now()
	lost := func(times int, every time.Duration) (hurried int) {
		for range times {
			if st.mayHurry(now) {
				hurried++
			}
			now = now.Add(every)
		}
		return hurried
	}
	if got := lost(20, time.Millisecond); got != hurryBurst {
		t.Errorf("%d of 20 in a row were hurried", got)
	}
	if got := lost(60, time.Second); got < 5 || got > 6 {
		t.Errorf("%d of 60 in a minute were hurried", got)
	}
	now = now.Add(hurryBurst * hurryEvery)
	if got := lost(20, time.Millisecond); got != hurryBurst {
		t.Errorf("after a quiet time, %d of 20 in a row were hurried", got)
	}
}
