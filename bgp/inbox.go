package bgp

import (
	"encoding/binary"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// inbox is what has been read of a connection and not been taken yet. Bytes go in as they come, whole messages come out, so that
// what a session's traffic does to a message is done before GoBGP sees any of it.
type inbox struct {
	buf  []byte
	from int  // buf[from:] is there
	raw  bool // the stream made no sense: all that comes goes on as it is, and GoBGP answers it
}

func (i *inbox) len() int { return len(i.buf) - i.from }

func (i *inbox) put(b []byte) {
	if i.from > 0 {
		i.buf, i.from = i.buf[:copy(i.buf, i.buf[i.from:])], 0
	}
	i.buf = append(i.buf, b...)
}

// next takes the next whole message, of at most limit bytes; nil where none has come. It is good until put.
func (i *inbox) next(limit int) []byte {
	b := i.buf[i.from:]
	n := len(b)
	if !i.raw {
		if n < headerLen {
			return nil
		}
		n = int(binary.BigEndian.Uint16(b[16:]))
		if n < headerLen || n > limit || n > bgp.BGP_MAX_MESSAGE_LENGTH && b[18] <= bgp.BGP_MSG_KEEPALIVE && b[18] != bgp.BGP_MSG_UPDATE && b[18] != bgp.BGP_MSG_NOTIFICATION {
			i.raw = true
			n = len(b)
		}
	}
	if n == 0 || n > len(b) {
		return nil
	}
	i.from += n
	return b[:n:n]
}
