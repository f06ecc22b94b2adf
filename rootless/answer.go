package rootless

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// sockclnt_create of VPP's memclnt.api: the one message whose number is fixed (VL_API_SOCKCLNT_CREATE), since it is how a
// client gets the numbers of all others.
const (
	sockclntCreate   = 15
	socketHeader     = 16 // unused u64, message length u32, unused u32
	answerRetry      = 10 * time.Millisecond
	answerOnce       = 2 * time.Second // for one attempt
	answerNameLength = 64
)

// awaitAnswer asks at an API socket until the VPP behind it answers. The kernel connects to a VPP that hangs, too, so an
// answer is what counts. The error, when ctx ends first, is that of the last attempt.
func awaitAnswer(ctx context.Context, socket string) error {
	last := errors.New("its API socket did not appear")
	for {
		attempt, cancel := context.WithTimeout(ctx, answerOnce)
		err := ask(attempt, socket)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(answerRetry):
		}
	}
}

// ask registers as an API client and leaves again.
func ask(ctx context.Context, socket string) error {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("ask vpp: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	const length = 2 + 4 + answerNameLength // _vl_msg_id, context, name
	msg := make([]byte, socketHeader, socketHeader+length)
	binary.BigEndian.PutUint32(msg[8:], length)
	msg = binary.BigEndian.AppendUint16(msg, sockclntCreate)
	msg = append(msg, 0, 0, 0, 0)
	msg = append(msg, "rlr-alive"...)
	msg = msg[:socketHeader+length]
	if _, err := c.Write(msg); err != nil {
		return fmt.Errorf("ask vpp: %w", err)
	}
	// _vl_msg_id, client_index, context, response
	var reply [socketHeader + 2 + 4 + 4 + 4]byte
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		return fmt.Errorf("ask vpp: %w", err)
	}
	if response := int32(binary.BigEndian.Uint32(reply[socketHeader+10:])); response < 0 {
		return fmt.Errorf("ask vpp: it refused with %d", response)
	}
	return nil
}
