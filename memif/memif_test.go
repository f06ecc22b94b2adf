package memif

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// end is one Interface under test with its Run.
type end struct {
	*Interface
	t      testing.TB
	link   chan bool
	stop   context.CancelFunc
	result chan error
}

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t testing.TB, cfg Config) *end {
	t.Helper()
	e := &end{t: t, link: make(chan bool, 1000), result: make(chan error, 1)}
	cfg.Log = quiet()
	cfg.OnLink = func(up bool) { e.link <- up }
	i, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Interface = i
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	go func() { e.result <- i.Run(ctx) }()
	t.Cleanup(e.close)
	return e
}

// close ends Run and waits for it; a second call does nothing.
func (e *end) close() {
	e.stop()
	select {
	case <-e.done:
	case <-time.After(patience):
		e.t.Error("Run does not end")
	}
}

const patience = time.Minute // spent only by a test that fails

func (e *end) waitLink(up bool) {
	e.t.Helper()
	select {
	case got := <-e.link:
		if got != up {
			e.t.Fatalf("link event %v, want %v (last error %q)", got, up, e.Stats().LastError)
		}
	case err := <-e.result:
		e.t.Fatalf("Run ended: %v", err)
	case <-time.After(patience):
		e.t.Fatalf("no link event, want %v (last error %q)", up, e.Stats().LastError)
	}
}

// waitError polls for a reason in Stats.
func (e *end) waitError(part string) {
	e.t.Helper()
	eventually(e.t, "LastError with "+part, func() bool { return strings.Contains(e.Stats().LastError, part) })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// waitListener waits until somebody accepts at the path, for peers that are not Interfaces.
func waitListener(t testing.TB, sock string) {
	t.Helper()
	eventually(t, "listener at "+sock, func() bool {
		nc, err := net.Dial("unixpacket", sock)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

// pair connects a master and a slave with the given settings.
func pair(t testing.TB, cfg Config) (master, slave *end) {
	t.Helper()
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(shortDir(t), "s")
	}
	m, s := cfg, cfg
	m.Role, m.Name = Master, "memif1/0"
	s.Role, s.Name = Slave, "wg0"
	master = start(t, m)
	slave = start(t, s)
	master.waitLink(true)
	slave.waitLink(true)
	return master, slave
}

// sendAll retries until every frame is taken.
func sendAll(t testing.TB, i *Interface, queue int, frames [][]byte) {
	for len(frames) > 0 {
		n, err := i.WriteBatch(queue, frames)
		if err != nil {
			t.Errorf("WriteBatch: %v", err)
			return
		}
		frames = frames[n:]
		if n == 0 {
			runtime.Gosched()
		}
	}
}

type receiver struct {
	bufs  [][]byte
	sizes []int
}

func newReceiver(n, size int) *receiver {
	r := &receiver{sizes: make([]int, n)}
	for range n {
		r.bufs = append(r.bufs, make([]byte, size))
	}
	return r
}

// receive reads until count frames have come and gives each to visit.
func (r *receiver) receive(i *Interface, queue, count int, visit func(k int, frame []byte) bool) error {
	for k := 0; k < count; {
		n, err := i.ReadBatch(queue, r.bufs, r.sizes)
		if err != nil {
			return err
		}
		for j := range n {
			if !visit(k, r.bufs[j][:r.sizes[j]]) {
				return errors.New("unexpected frame")
			}
			k++
		}
	}
	return nil
}

// numbered is frame k of a stream: its number, then bytes that follow from it, of a length that follows from it.
func numbered(k, most int) []byte {
	rng := rand.New(rand.NewPCG(uint64(k), 7))
	b := make([]byte, 8+rng.IntN(most-7))
	binary.BigEndian.PutUint64(b, uint64(k))
	fill := byte(rng.Uint32())
	for i := 8; i < len(b); i++ {
		b[i] = fill + byte(i)
	}
	return b
}

func TestStreamKeepsContentAndOrder(t *testing.T) {
	tests := []struct {
		name  string
		cfg   Config
		count int
		most  int
	}{
		{"small frames", Config{}, 120_000, 100},
		{"ip mode", Config{Mode: IP, ID: 7, Secret: "s3cret"}, 5_000, 1500},
		{"secret of full length", Config{Secret: strings.Repeat("x", 24)}, 100, 100},
		{"tiny ring", Config{RingSize: 2}, 5_000, 100},
		{"chains", Config{RingSize: 64, BufferSize: 64}, 5_000, 3000},
		{"largest ring", Config{RingSize: 32768, BufferSize: 64}, 70_000, 64},
		{"jumbo", Config{RingSize: 128}, 2_000, 65_000},
		{"abstract socket", Config{Socket: "@rlr-memif-test-" + filepath.Base(os.Args[0])}, 100, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			master, slave := pair(t, tt.cfg)
			var wg sync.WaitGroup
			for _, dir := range []struct{ from, to *end }{{master, slave}, {slave, master}} {
				wg.Go(func() {
					for k := 0; k < tt.count; {
						var batch [][]byte
						for ; len(batch) < 32 && k < tt.count; k++ {
							batch = append(batch, numbered(k, tt.most))
						}
						sendAll(t, dir.from.Interface, 0, batch)
					}
				})
				wg.Go(func() {
					err := newReceiver(32, tt.most).receive(dir.to.Interface, 0, tt.count, func(k int, f []byte) bool {
						if !bytes.Equal(f, numbered(k, tt.most)) {
							t.Errorf("%v: frame %d is not what was sent (%d bytes)", dir.to.cfg.Role, k, len(f))
							return false
						}
						return true
					})
					if err != nil {
						t.Errorf("%v: %v", dir.to.cfg.Role, err)
					}
				})
			}
			wg.Wait()
			for _, e := range []*end{master, slave} {
				s := e.Stats()
				if s.TxFrames != uint64(tt.count) || s.RxFrames != uint64(tt.count) || s.RxBad+s.RxTooLong+s.TxUnsendable > 0 || s.RxBytes != s.TxBytes {
					t.Errorf("%v: %+v", e.cfg.Role, s)
				}
			}
		})
	}
}

func TestQueues(t *testing.T) {
	sock := filepath.Join(shortDir(t), "s")
	master := start(t, Config{Role: Master, Socket: sock, Queues: 3})
	slave := start(t, Config{Role: Slave, Socket: sock, Queues: 8})
	master.waitLink(true)
	slave.waitLink(true)
	if m, s := master.Queues(), slave.Queues(); m != 3 || s != 3 {
		t.Fatalf("queues %d and %d, want the smaller count 3", m, s)
	}
	const count = 3000
	var wg sync.WaitGroup
	for q := range 3 {
		for _, dir := range []struct{ from, to *end }{{master, slave}, {slave, master}} {
			wg.Go(func() {
				for k := range count {
					sendAll(t, dir.from.Interface, q, [][]byte{numbered(k*3+q, 80)})
				}
			})
			wg.Go(func() {
				err := newReceiver(8, 80).receive(dir.to.Interface, q, count, func(k int, f []byte) bool {
					return bytes.Equal(f, numbered(k*3+q, 80))
				})
				if err != nil {
					t.Errorf("queue %d: %v", q, err)
				}
			})
		}
	}
	wg.Wait()
	// A queue beyond the agreed ones wraps for a writer.
	sendAll(t, slave.Interface, 4, [][]byte{{1}})
	if err := newReceiver(1, 10).receive(master.Interface, 1, 1, func(int, []byte) bool { return true }); err != nil {
		t.Error(err)
	}
}

func TestConcurrentWriters(t *testing.T) {
	master, slave := pair(t, Config{RingSize: 64})
	const writers, count = 8, 2000
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for k := range count {
				b := binary.BigEndian.AppendUint32([]byte{byte(w)}, uint32(k))
				sendAll(t, slave.Interface, 0, [][]byte{b})
			}
		})
	}
	var next [writers]uint32
	err := newReceiver(16, 100).receive(master.Interface, 0, writers*count, func(_ int, f []byte) bool {
		w := f[0]
		ok := binary.BigEndian.Uint32(f[1:]) == next[w]
		next[w]++
		return ok
	})
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestRingFull(t *testing.T) {
	for _, fromSlave := range []bool{true, false} {
		from, to := pair(t, Config{RingSize: 16, BufferSize: 64})
		if fromSlave {
			from, to = to, from
		}
		many := make([][]byte, 100)
		for k := range many {
			many[k] = []byte{byte(k)}
		}
		n, err := from.WriteBatch(0, many)
		if err != nil || n != 16 {
			t.Fatalf("%v: %d frames taken, %v; want the 16 of the ring", from.cfg.Role, n, err)
		}
		if n, err := from.WriteBatch(0, many); n != 0 || err != nil {
			t.Fatalf("%v: %d more, %v", from.cfg.Role, n, err)
		}
		r := newReceiver(5, 64)
		if n, err := to.ReadBatch(0, r.bufs, r.sizes); n != 5 || err != nil {
			t.Fatalf("%v: read %d, %v", to.cfg.Role, n, err)
		}
		// Room for five; a chain of six does not fit, and is not published in part.
		if n, err := from.WriteBatch(0, [][]byte{make([]byte, 64*6)}); n != 0 || err != nil {
			t.Fatalf("%v: chain: %d, %v", from.cfg.Role, n, err)
		}
		if n, err := from.WriteBatch(0, [][]byte{make([]byte, 64*5)}); n != 1 || err != nil {
			t.Fatalf("%v: chain: %d, %v", from.cfg.Role, n, err)
		}
		big := newReceiver(20, 1000)
		sizes := []int{}
		if err := big.receive(to.Interface, 0, 12, func(_ int, f []byte) bool { sizes = append(sizes, len(f)); return true }); err != nil {
			t.Fatal(err)
		}
		if sizes[11] != 320 {
			t.Errorf("%v: sizes %v", to.cfg.Role, sizes)
		}
		if s := from.Stats(); s.TxFull != 3 || s.TxFrames != 17 {
			t.Errorf("%v: %+v", from.cfg.Role, s)
		}
	}
}

func TestUnsendableAndTooLongFrames(t *testing.T) {
	for _, fromSlave := range []bool{true, false} {
		from, to := pair(t, Config{RingSize: 8, BufferSize: 128})
		if fromSlave {
			from, to = to, from
		}
		frames := [][]byte{{}, make([]byte, 8*128+1), make([]byte, maxFrame+1), make([]byte, 300), {7}}
		if n, err := from.WriteBatch(0, frames); n != len(frames) || err != nil {
			t.Fatalf("%d taken, %v", n, err)
		}
		err := newReceiver(4, 299).receive(to.Interface, 0, 1, func(_ int, f []byte) bool { return bytes.Equal(f, []byte{7}) })
		if err != nil {
			t.Fatal(err)
		}
		if s := from.Stats(); s.TxUnsendable != 3 || s.TxFrames != 2 {
			t.Errorf("sender %+v", s)
		}
		if s := to.Stats(); s.RxTooLong != 1 || s.RxFrames != 1 || s.RxBad != 0 {
			t.Errorf("receiver %+v", s)
		}
	}
}

func TestReconnect(t *testing.T) {
	for _, role := range []Role{Master, Slave} {
		t.Run(role.String()+" restarts", func(t *testing.T) {
			cfg := Config{Socket: filepath.Join(shortDir(t), "s")}
			master, slave := pair(t, cfg)
			restart, stay := master, slave
			if role == Slave {
				restart, stay = slave, master
			}
			got := make(chan byte, 10)
			ended := make(chan error, 1)
			go func() {
				ended <- newReceiver(4, 64).receive(stay.Interface, 0, 1<<30, func(_ int, f []byte) bool { got <- f[0]; return true })
			}()
			for round := range byte(4) {
				sendAll(t, restart.Interface, 0, [][]byte{{round}})
				select {
				case b := <-got:
					if b != round {
						t.Fatalf("got %d in round %d", b, round)
					}
				case <-time.After(patience):
					t.Fatal("no frame")
				}
				restart.close()
				stay.waitLink(false)
				if stay.Up() || stay.Queues() != 0 {
					t.Error("still up")
				}
				if n, err := stay.WriteBatch(0, [][]byte{{1}}); n != 0 || !errors.Is(err, ErrDown) {
					t.Errorf("write while down: %d, %v", n, err)
				}
				if _, err := restart.ReadBatch(0, [][]byte{{0}}, []int{0}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("read after the end: %v", err)
				}
				stay.waitError("interface is shut down")
				next := cfg
				next.Role = role
				restart = start(t, next)
				restart.waitLink(true)
				stay.waitLink(true)
				if e := stay.Stats().LastError; e != "" {
					t.Errorf("error %q stays after the link came up", e)
				}
			}
			stay.close()
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("reader ended with %v", err)
			}
		})
	}
}

func TestSlaveWaitsForMaster(t *testing.T) {
	dir := shortDir(t)
	slave := start(t, Config{Role: Slave, Socket: filepath.Join(dir, "sub", "s")})
	slave.waitError("no such file")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, Config{Role: Master, Socket: filepath.Join(dir, "sub", "s")})
	slave.waitLink(true)
}

func TestConfigErrors(t *testing.T) {
	tests := []struct {
		cfg  Config
		want string
	}{
		{Config{}, "no socket"},
		{Config{Socket: "s", Role: 2}, "role 2"},
		{Config{Socket: "s", Mode: 2}, "mode 2"},
		{Config{Socket: strings.Repeat("s", 108)}, "108 bytes long"},
		{Config{Socket: "a\x00b"}, "zero byte"},
		{Config{Socket: "s", Secret: strings.Repeat("s", 25)}, "25 bytes long"},
		{Config{Socket: "s", Secret: "a\x00"}, "zero byte"},
		{Config{Socket: "s", RingSize: 1000}, "power of two"},
		{Config{Socket: "s", RingSize: 1}, "power of two"},
		{Config{Socket: "s", RingSize: 65536}, "power of two"},
		{Config{Socket: "s", RingSize: -4}, "power of two"},
		{Config{Socket: "s", BufferSize: 10}, "buffer size 10"},
		{Config{Socket: "s", BufferSize: 65536}, "buffer size 65536"},
		{Config{Socket: "s", Queues: 257}, "257 queues"},
		{Config{Socket: "s", Queues: -1}, "-1 queues"},
		{Config{Socket: "s", Queues: 256, RingSize: 32768}, "4 GiB"},
	}
	for _, tt := range tests {
		if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

func TestRunTwice(t *testing.T) {
	_, slave := pair(t, Config{})
	if err := slave.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

// TestIdleLinkSleeps: after traffic, nobody wakes up; and a reader that was asleep is woken by one interrupt.
func TestIdleLinkSleeps(t *testing.T) {
	master, slave := pair(t, Config{})
	got := make(chan struct{}, 100)
	for _, e := range []*end{master, slave} {
		go func() {
			_ = newReceiver(4, 64).receive(e.Interface, 0, 1<<30, func(int, []byte) bool { got <- struct{}{}; return true })
		}()
	}
	for range 50 {
		for _, e := range []*end{master, slave} {
			sendAll(t, e.Interface, 0, [][]byte{{1}})
			select {
			case <-got:
			case <-time.After(patience):
				t.Fatal("lost wake-up")
			}
		}
	}
	before := [2]Stats{master.Stats(), slave.Stats()}
	time.Sleep(300 * time.Millisecond) // not to synchronise: this is the idleness that is measured
	after := [2]Stats{master.Stats(), slave.Stats()}
	for k := range before {
		if w := after[k].Wakeups - before[k].Wakeups; w > 1 { // one may be on its way at the beginning
			t.Errorf("end %d: %d wake-ups while idle", k, w)
		}
		if before[k].Interrupts != after[k].Interrupts || after[k].Interrupts > 50 {
			t.Errorf("end %d: %d interrupts for 50 frames, %d while idle", k, before[k].Interrupts, after[k].Interrupts-before[k].Interrupts)
		}
	}
}

// TestBusyReaderIsNotInterrupted: interrupts are for readers that sleep.
func TestBusyReaderIsNotInterrupted(t *testing.T) {
	master, slave := pair(t, Config{})
	r := newReceiver(4, 64)
	sendAll(t, slave.Interface, 0, [][]byte{{1}})
	if err := r.receive(master.Interface, 0, 1, func(int, []byte) bool { return true }); err != nil {
		t.Fatal(err)
	}
	before := slave.Stats().Interrupts
	for range 100 { // the reader is not asleep: it is here
		sendAll(t, slave.Interface, 0, [][]byte{{1}})
	}
	if n := slave.Stats().Interrupts - before; n != 0 {
		t.Errorf("%d interrupts to a reader that is awake", n)
	}
}

func openFDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

func TestNoLeaks(t *testing.T) {
	cycle := func() {
		master, slave := pair(t, Config{Queues: 2})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = newReceiver(1, 10).receive(master.Interface, 0, 10, func(int, []byte) bool { return true })
		}()
		refused := start(t, Config{Role: Slave, Socket: master.cfg.Socket, ID: 9})
		refused.waitError("unmatched")
		slave.close()
		master.waitLink(false)
		slave = start(t, Config{Role: Slave, Socket: master.cfg.Socket})
		slave.waitLink(true)
		refused.close()
		slave.close()
		master.close()
		<-done
	}
	cycle()
	fds, maps := openFDs(t), mappings(t)
	goroutines := runtime.NumGoroutine()
	for range 5 {
		cycle()
	}
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "as many descriptors as before", func() bool { return openFDs(t) <= fds })
	if now := mappings(t); now > maps {
		t.Errorf("%d memif mappings, %d before", now, maps)
	}
}

// mappings counts the memif regions in the address space.
func mappings(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	return strings.Count(string(b), "memfd:memif")
}
