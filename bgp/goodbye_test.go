package bgp

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Run ends when a peer has taken the NOTIFICATION, and does not wait long for one that takes nothing.
func TestGoodbyeIsHeard(t *testing.T) {
	r1, node, _ := rawSite(t, "169.254.1.2", "169.254.1.1", nil)
	start(t, r1)
	heard := dialRaw(t, node, "169.254.1.1")
	heard.establish()
	r1.established("raw")
	ended := make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(ended)
		r1.stop()
	}()
	body := heard.expect(bgp.BGP_MSG_NOTIFICATION)
	if body[0] != bgp.BGP_ERROR_CEASE || body[1] != ceaseShutdown {
		t.Errorf("NOTIFICATION % x", body)
	}
	if _, _, err := heard.read(10 * time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("after the NOTIFICATION: %v", err)
	}
	select {
	case <-ended:
		if took := time.Since(begun); took < writeWait {
			t.Errorf("Run ended after %v, and the peer still had the connection open", took)
		}
	case <-time.After(writeWait / 2): // nothing happens, as it should be
	}
	heard.conn.Close()
	<-ended
}
