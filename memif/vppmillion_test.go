package memif

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestMillion sends a million packets, half of them each way, through a VPP that connects two memifs at layer 2, in one of
// which it is master and in the other slave: every packet goes through both roles, and comes out whole, once and in its
// place.
//
// The sender waits for what is on its way, so that no ring (of 1,024 buffers) in between can be full: a loss is a bug.
func TestMillion(t *testing.T) {
	for _, tt := range []struct {
		name  string
		slave string // options of "create interface memif" for the one in which VPP is slave
		count int    // packets each way
		most  int    // bytes of the longest
		under int    // packets that may be on their way
	}{
		{"zero copy", "slave", 500_000, 1514, 256},
		{"copies", "slave no-zero-copy", 50_000, 1514, 256},
		{"jumbo chains", "slave no-zero-copy buffer-size 1024", 20_000, 9014, 64},
	} {
		t.Run("vpp/"+tt.name, func(t *testing.T) {
			v := startVPP(t)
			ours := [2]*end{}
			for k, role := range []Role{Slave, Master} {
				options := []string{"master", tt.slave}[k]
				cfg := Config{Role: role, Socket: filepath.Join(v.dir, fmt.Sprint("m", k)), Name: fmt.Sprint("ours", k)}
				v.run(fmt.Sprintf("create memif socket id %d filename %s", k+1, cfg.Socket))
				v.run(fmt.Sprintf("create interface memif socket-id %d id 0 %s", k+1, options))
				ours[k] = start(t, cfg)
				if role == Master {
					waitListener(t, cfg.Socket)
				}
				v.run(fmt.Sprintf("set interface state memif%d/0 up", k+1))
			}
			for k, e := range ours {
				e.waitLink(true)
				v.run(fmt.Sprintf("set interface rx-mode memif%d/0 adaptive", k+1))
				v.run(fmt.Sprintf("set interface l2 xconnect memif%d/0 memif%d/0", k+1, 2-k))
			}
			began := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() { throughVPP(t, ours[0], ours[1], tt.count, tt.most, tt.under) })
			wg.Go(func() { throughVPP(t, ours[1], ours[0], tt.count, tt.most, tt.under) })
			wg.Wait()
			t.Logf("%d packets each way in %s", tt.count, time.Since(began).Round(10*time.Millisecond))
			for _, e := range ours {
				s := e.Stats()
				if s.TxFrames != uint64(tt.count) || s.RxFrames != uint64(tt.count) || s.RxBad+s.RxTooLong+s.TxUnsendable > 0 || s.Connects != 1 {
					t.Errorf("%v: %+v", e.cfg.Role, s)
				}
			}
			if t.Failed() {
				t.Log(v.run("show errors"), v.run("show interface"))
			}
		})
	}
}

// throughVPP sends numbered frames and takes them at the other end, with no more than a window of them on their way.
func throughVPP(t *testing.T, from, to *end, count, most, window int) {
	const batch = 32
	arrived := make(chan int, window) // how many: an entry for each batch that was read
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r := newReceiver(batch, most)
		for k := 0; k < count; {
			n, err := to.ReadBatch(0, r.bufs, r.sizes)
			for j := range n {
				if want := crossing(k, most); err == nil && !bytes.Equal(r.bufs[j][:r.sizes[j]], want) {
					err = fmt.Errorf("%d bytes, % x…; want %d, % x…", r.sizes[j], r.bufs[j][:22], len(want), want[:22])
				}
				if err != nil {
					t.Errorf("to the %v: packet %d: %v", to.cfg.Role, k, err)
					return
				}
				k++
			}
			if err != nil {
				t.Errorf("to the %v: after %d packets: %v", to.cfg.Role, k, err)
				return
			}
			arrived <- n
		}
	}()
	under := 0
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for k := 0; k < count || under > 0; {
		if n := min(batch, count-k); n > 0 && under+n <= window {
			frames := make([][]byte, n)
			for j := range frames {
				frames[j] = crossing(k+j, most)
			}
			sendAll(t, from.Interface, 0, frames)
			k, under = k+n, under+n
			continue
		}
		timeout.Reset(patience)
		select {
		case n := <-arrived:
			under -= n
		case <-ended:
			if len(arrived) == 0 {
				return // it has said why, or this was the last
			}
		case <-timeout.C:
			t.Errorf("to the %v: %d of %d packets sent, and %d of them are lost: %+v", to.cfg.Role, k, count, under, to.Stats())
			to.stop() // which ends the reader
			<-ended
			return
		}
	}
	<-ended
}

// filling is what frames are filled with, from different places on.
var filling = func() []byte {
	b := make([]byte, 1<<14)
	rng := rand.New(rand.NewPCG(1, 2))
	for k := range b {
		b[k] = byte(rng.Uint32())
	}
	return b
}()

// crossing is frame k: addresses, an EtherType for experiments (IEEE 802), its number, and bytes that follow from it, of a
// length that does.
func crossing(k, most int) []byte {
	const head = 22
	b := make([]byte, 0, most)
	b = append(b, 2, 0xcc, 0, 0, 0, 1, 2, 0xcc, 0, 0, 0, 2, 0x88, 0xb5)
	b = binary.BigEndian.AppendUint64(b, uint64(k))
	from := k * 31 % (1 << 12)
	return append(b, filling[from:from+k*7919%(most-head+1)]...)
}
