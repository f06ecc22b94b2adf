package rpki

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/rtr"
	"github.com/sirupsen/logrus"
)

// cache is an RTR server of a test. It answers as RFC 8210 wants, unless a test has it do otherwise.
type cache struct {
	t       *testing.T
	version uint8 // the highest that it speaks
	drops   bool  // on an unknown version it hangs up, as some old servers do, instead of saying so

	mu      sync.Mutex
	down    bool // refuses connections
	mute    bool // does not answer queries
	session uint16
	serial  uint32
	history map[uint32][]VRP // by serial, as far back as it can tell differences
	timers  timers
	conns   map[net.Conn]uint8
	dials   int
	queries []string
	raw     func(version uint8) []byte // in place of the next answer
}

func newCache(t *testing.T, version uint8, vrps ...VRP) *cache {
	return &cache{
		t: t, version: version, session: 7, serial: 1, history: map[uint32][]VRP{1: sorted(vrps)}, conns: map[net.Conn]uint8{},
		timers: timers{refresh: 600 * time.Second, retry: 300 * time.Second, expire: 7200 * time.Second},
	}
}

func (c *cache) dial() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dials++
	if c.down {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	c.conns[ours] = 255
	go c.serve(ours)
	return theirs, nil
}

// set makes the VRPs others, and tells the routers where notify is set.
func (c *cache) set(notify bool, vrps ...VRP) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	c.history[c.serial] = sorted(vrps)
	if !notify {
		return
	}
	for conn, version := range c.conns {
		m := rtr.NewRTRSerialNotify(c.session, c.serial)
		m.Version = version
		c.write(conn, m)
	}
}

func (c *cache) fail(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
	if down {
		for conn := range c.conns {
			_ = conn.Close()
		}
	}
}

func (c *cache) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *cache) asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.queries
	c.queries = nil
	return l
}

func (c *cache) write(conn net.Conn, m rtr.RTRMessage) {
	b, err := m.Serialize()
	if err != nil {
		c.t.Error(err)
	}
	_, _ = conn.Write(b) // the router may have gone
}

func (c *cache) serve(conn net.Conn) {
	defer func() {
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
		_ = conn.Close()
	}()
	r := bufio.NewReader(conn)
	for {
		head, err := r.Peek(rtr.RTR_MIN_LEN)
		if err != nil {
			return
		}
		raw := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, raw); err != nil {
			return
		}
		if !c.answer(conn, raw) {
			return
		}
	}
}

// answer answers one PDU, and says whether the connection goes on.
func (c *cache) answer(conn net.Conn, raw []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	version := raw[0]
	if version > c.version {
		if !c.drops {
			e := rtr.NewRTRErrorReport(rtr.UNSUPPORTED_PROTOCOL_VERSION, raw, []byte("only version 0"))
			e.Version = c.version
			c.write(conn, e)
		}
		return false
	}
	c.conns[conn] = version
	m, err := rtr.ParseRTR(raw)
	if err != nil {
		c.t.Errorf("the router sends %x: %v", raw, err)
		return false
	}
	var from []VRP
	switch m := m.(type) {
	case *rtr.RTRResetQuery:
		c.queries = append(c.queries, fmt.Sprintf("v%d reset", version))
	case *rtr.RTRSerialQuery:
		c.queries = append(c.queries, fmt.Sprintf("v%d serial %d", version, m.SerialNumber))
		var known bool
		if from, known = c.history[m.SerialNumber]; !known && c.raw == nil && !c.mute {
			reset := rtr.NewRTRCacheReset()
			reset.Version = version
			c.write(conn, reset)
			return true
		}
	case *rtr.RTRErrorReport:
		c.queries = append(c.queries, fmt.Sprintf("v%d error %d %s", version, m.ErrorCode, m.Text))
		return true
	}
	switch {
	case c.raw != nil:
		_, _ = conn.Write(c.raw(version))
		c.raw = nil
		return true
	case c.mute:
		return true
	}
	_, _ = conn.Write(c.whole(version, from))
	return true
}

// whole is the bytes of an answer that leads from these VRPs to those of the moment.
func (c *cache) whole(version uint8, from []VRP) []byte {
	added, removed := Diff(NewTable(from), NewTable(c.history[c.serial]))
	b := cacheResponse(version, c.session)
	if version > 0 {
		b = append(b, routerKey()...)
	}
	for _, v := range removed {
		b = append(b, prefixPDU(version, v, rtr.WITHDRAWAL)...)
	}
	for _, v := range added {
		b = append(b, prefixPDU(version, v, rtr.ANNOUNCEMENT)...)
	}
	return append(b, endOfData(version, c.session, c.serial, c.timers)...)
}

func bytesOf(m rtr.RTRMessage) []byte {
	b, err := m.Serialize()
	if err != nil {
		panic(err)
	}
	return b
}

func cacheResponse(version uint8, session uint16) []byte {
	m := rtr.NewRTRCacheResponse(session)
	m.Version = version
	return bytesOf(m)
}

func prefixPDU(version uint8, v VRP, flags uint8) []byte {
	m := rtr.NewRTRIPPrefix(v.Prefix.Addr(), uint8(v.Prefix.Bits()), v.MaxLength, v.AS, flags)
	m.Version = version
	return bytesOf(m)
}

func endOfData(version uint8, session uint16, serial uint32, t timers) []byte {
	m := rtr.NewRTREndOfData(session, serial)
	m.Version = version
	b := bytesOf(m)
	if version == 0 {
		return b
	}
	for _, d := range []time.Duration{t.refresh, t.retry, t.expire} {
		b = binary.BigEndian.AppendUint32(b, uint32(d.Seconds()))
	}
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

// routerKey is a PDU that a router without BGPsec passes over.
func routerKey() []byte {
	b := make([]byte, 8+20+4+91)
	b[0], b[1] = 1, routerKeyType
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

// collecting is a Collector of caches, in a bubble of synctest.
type collecting struct {
	*Collector
	t    *testing.T
	stop func()
}

func collect(t *testing.T, cfg Config, caches map[string]*cache) *collecting {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	c := New(Options{
		Config: cfg, Dir: t.TempDir(), Log: logrus.NewEntry(log), Changed: func() {},
		Dial: func(_ context.Context, s Server) (net.Conn, error) { return caches[s.Address].dial() },
	})
	return start(t, c)
}

func start(t *testing.T, c *Collector) *collecting {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return &collecting{c, t, stop}
}

// after lets time pass, of which there is as much as is wanted in a bubble, and holds the table against VRPs.
func (c *collecting) after(d time.Duration, want ...VRP) {
	c.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if got := c.Table().All(); !slices.Equal(got, sorted(want)) {
		c.t.Fatalf("after %s the table is %v, want %v (%s)", d, got, want, c.text())
	}
}

// text is the sources, a phrase each.
func (c *collecting) text() string {
	var out []string
	for _, s := range c.Sources() {
		line := fmt.Sprintf("%s %s", s.Name, s.State)
		if s.Used {
			line += fmt.Sprintf(" used %d+%d", s.IPv4, s.IPv6)
		}
		if s.Kind == KindRTR && !s.Updated.IsZero() {
			line += fmt.Sprintf(" v%d serial %d", s.Version, s.Serial)
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func (c *collecting) sources(want string) {
	c.t.Helper()
	if got := c.text(); got != want {
		c.t.Fatalf("sources: %s\nwant: %s", got, want)
	}
}

var (
	one   = vrp("10.1.0.0/16", 24, 65001)
	two   = vrp("10.2.0.0/16", 16, 0)
	three = vrp("fd00:3::/32", 48, 65003)
)

func servers1(names ...string) Config {
	var c Config
	for _, n := range names {
		c.Servers = append(c.Servers, Server{Address: n})
	}
	return c
}

// Queries, notifications, differences, and what a server answers when it has forgotten.
func TestServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCache(t, 1, one, two)
		c := collect(t, servers1("a"), map[string]*cache{"a": a})
		defer c.stop()
		c.after(time.Second, one, two)
		c.sources("a ok used 2+0 v1 serial 1")
		a.set(true, two, three)
		c.after(time.Second, two, three)
		a.set(false, three)
		c.after(599*time.Second-2*time.Second, two, three)
		c.after(4*time.Second, three)
		if got := a.asked(); !slices.Equal(got, []string{"v1 reset", "v1 serial 1", "v1 serial 2"}) {
			t.Errorf("queries: %q", got)
		}
		a.do(func() { a.history = map[uint32][]VRP{3: nil} }) // only what it has just told is known to it: it has nothing new
		a.set(true, one)
		a.do(func() { delete(a.history, 3) })
		c.after(time.Second, one)
		if got := a.asked(); !slices.Equal(got, []string{"v1 serial 3", "v1 reset"}) && !slices.Equal(got, []string{"v1 serial 3"}) {
			t.Errorf("queries: %q", got)
		}
		// It restarts with another session: what it says of serials means nothing any more.
		a.fail(true)
		c.after(time.Second, one)
		c.sources("a stale used 1+0 v1 serial 4")
		a.do(func() { a.session, a.serial, a.history = 8, 1, map[uint32][]VRP{1: {two}, 4: {two}} })
		a.fail(false)
		c.after(10*time.Second, two)
		if got := a.asked(); !slices.Contains(got, "v1 serial 4") || !slices.Contains(got, "v1 reset") {
			t.Errorf("queries: %q", got)
		}
	})
}

// Servers of RFC 6810, those that say so and those that hang up.
func TestOldServer(t *testing.T) {
	for _, drops := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := newCache(t, 0, one)
			a.drops = drops
			c := collect(t, servers1("a"), map[string]*cache{"a": a})
			defer c.stop()
			c.after(time.Second, one)
			c.sources("a ok used 1+0 v0 serial 1")
			a.set(true, two)
			c.after(time.Second, two)
			a.fail(true)
			a.fail(false)
			c.after(10*time.Second, two)
			if got := a.asked(); !slices.Equal(got, []string{"v0 reset", "v0 serial 1", "v0 serial 2"}) {
				t.Errorf("queries: %q", got)
			}
		})
	}
}

// The order of preference, the way back, and the standby's silence.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, x := newCache(t, 1, one), newCache(t, 1, one, two), newCache(t, 1, three)
		c := collect(t, servers1("a", "b", "x"), map[string]*cache{"a": a, "b": b, "x": x})
		defer c.stop()
		c.after(time.Second, one)
		c.sources("a ok used 1+0 v1 serial 1; b standby; x standby")
		a.fail(true)
		c.after(500*time.Millisecond, one, two)
		c.sources("a stale v1 serial 1; b ok used 2+0 v1 serial 1; x standby")
		b.fail(true)
		c.after(500*time.Millisecond, three)
		b.fail(false)
		c.after(5*time.Second, one, two) // the second is back, and better than the third
		a.fail(false)
		c.after(6*time.Minute, one)
		c.sources("a ok used 1+0 v1 serial 1; b standby; x standby")
		if n := len(x.conns) + len(b.conns); n != 0 {
			t.Errorf("%d connections to servers that are not needed", n)
		}
		if got := a.asked(); !slices.Equal(got, []string{"v1 reset", "v1 serial 1"}) {
			t.Errorf("queries: %q", got) // it went on where it was
		}
	})
}

// Data is used until its expire interval is over, and no longer; attempts become rare, but go on.
func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newCache(t, 1, one)
		c := collect(t, servers1("a"), map[string]*cache{"a": a})
		defer c.stop()
		c.after(time.Second, one)
		a.fail(true)
		c.after(7190*time.Second, one)
		c.sources("a stale used 1+0 v1 serial 1")
		c.after(10 * time.Second)
		c.sources("a expired v1 serial 1")
		a.mu.Lock()
		dials := a.dials
		a.mu.Unlock()
		if dials < 7200/300 || dials > 7200/300+12 {
			t.Errorf("%d attempts in two hours", dials)
		}
		a.fail(false)
		c.after(301*time.Second, one)
	})
}

// A server that accepts and is silent, or stops in the middle of an answer, is given up for the next one.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newCache(t, 1, one), newCache(t, 1, two)
		a.mute = true
		c := collect(t, servers1("a", "b"), map[string]*cache{"a": a, "b": b})
		defer c.stop()
		c.after(29 * time.Second)
		c.after(3*time.Second, two)
		c.sources("a failed; b ok used 1+0 v1 serial 1")
		if err := c.Sources()[0].LastError; err == nil || err.Error() != "no answer within 30s" {
			t.Errorf("last error: %v", err)
		}
		a.do(func() {
			a.mute = false
			a.raw = func(version uint8) []byte {
				return append(cacheResponse(version, 7), prefixPDU(version, one, rtr.ANNOUNCEMENT)[:10]...)
			}
		})
		c.after(40*time.Second, two)
		c.after(time.Minute, one)
	})
}

// What a server says wrongly ends the connection with a report, takes nothing away, and the next query is for all.
func TestWrongServer(t *testing.T) {
	t1 := timers{refresh: time.Hour, retry: time.Minute, expire: 2 * time.Hour}
	announce, withdraw := rtr.ANNOUNCEMENT, rtr.WITHDRAWAL
	host := VRP{one.Prefix, 24, 1}
	for name, c := range map[string]struct {
		answer func(v uint8) []byte
		report string
	}{
		"announced twice": {func(v uint8) []byte {
			return slices.Concat(cacheResponse(v, 7), prefixPDU(v, one, announce), endOfData(v, 7, 2, t1))
		}, "error 7 10.1.0.0/16-24 AS65001 is announced twice"},
		"withdrawn unknown": {func(v uint8) []byte {
			return slices.Concat(cacheResponse(v, 7), prefixPDU(v, two, withdraw), endOfData(v, 7, 2, t1))
		}, "error 6 10.2.0.0/16-16 AS0 is withdrawn and was not announced"},
		"another session": {func(v uint8) []byte {
			return slices.Concat(cacheResponse(v, 9), endOfData(v, 9, 2, t1))
		}, "error 0 the server has begun a new session in the middle of one"},
		"another session's end": {func(v uint8) []byte {
			return slices.Concat(cacheResponse(v, 7), endOfData(v, 9, 2, t1))
		}, "error 0 an End of Data of no answer, or of another session"},
		"prefix first":     {func(v uint8) []byte { return prefixPDU(v, two, announce) }, "error 0 a prefix outside of an answer"},
		"end first":        {func(v uint8) []byte { return endOfData(v, 7, 2, t1) }, "error 0 an End of Data of no answer, or of another session"},
		"two responses":    {func(v uint8) []byte { return slices.Repeat(cacheResponse(v, 7), 2) }, "error 0 a Cache Response to no query"},
		"another version":  {func(uint8) []byte { return cacheResponse(0, 7) }, "error 4 the server speaks version 0 where 1 was agreed"},
		"a future version": {func(uint8) []byte { return cacheResponse(2, 7) }, "error 4 the server speaks version 2 where 1 was agreed"},
		"a router's PDU":   {func(v uint8) []byte { b, _ := query(v, 0, 0, true); return b }, "error 3 a PDU of type 2, which only routers send"},
		"an unknown PDU":   {func(v uint8) []byte { return []byte{v, 77, 0, 0, 0, 0, 0, 8} }, "error 5 PDU type 77 is unknown"},
		"too short":        {func(v uint8) []byte { return []byte{v, 3, 0, 0, 0, 0, 0, 7} }, "error 0 a PDU of type 3 has a length of 7"},
		"too long":         {func(v uint8) []byte { return []byte{v, 4, 0, 0, 0xff, 0, 0, 0} }, "error 0 a PDU of type 4 has a length of 4278190080"},
		"a wrong length":   {func(v uint8) []byte { return []byte{v, 3, 0, 7, 0, 0, 0, 9, 0} }, "error 0 a PDU of type 3 has 9 bytes instead of 8"},
		"host bits": {func(v uint8) []byte {
			b := prefixPDU(v, host, announce)
			b[9] = 8
			return append(cacheResponse(v, 7), b...)
		}, "error 0 prefix 10.1.0.0/8 has host bits set"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newCache(t, 1, one)
				k := collect(t, servers1("a"), map[string]*cache{"a": a})
				defer k.stop()
				k.after(time.Second, one)
				a.asked()
				a.do(func() { a.raw = c.answer })
				a.set(true, two)
				k.after(900*time.Millisecond, one)
				k.sources("a stale used 1+0 v1 serial 1")
				k.after(5*time.Second, two)
				if got := a.asked(); !slices.Equal(got, []string{"v1 serial 1", "v1 " + c.report, "v1 reset"}) {
					t.Errorf("the server has heard %q", got)
				}
				if err := k.Sources()[0].LastError; err == nil || !strings.Contains(c.report, err.Error()) {
					t.Errorf("last error: %v", err)
				}
			})
		})
	}
}

// An error that the server reports is shown, and another server is tried.
func TestReportedError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newCache(t, 1), newCache(t, 1, two)
		a.raw = func(v uint8) []byte {
			m := rtr.NewRTRErrorReport(rtr.NO_DATA_AVAILABLE, nil, []byte("still\nloading"))
			m.Version = v
			return bytesOf(m)
		}
		c := collect(t, servers1("a", "b"), map[string]*cache{"a": a, "b": b})
		defer c.stop()
		c.after(900*time.Millisecond, two)
		if err := c.Sources()[0].LastError; err == nil || err.Error() != `the server reports error 2: "still\nloading"` {
			t.Errorf("last error: %v", err)
		}
	})
}

// A change of the configuration keeps what there is until those in its place have told.
func TestApplyServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newCache(t, 1, one), newCache(t, 1, two)
		b.mute = true
		c := collect(t, servers1("a"), map[string]*cache{"a": a, "b": b})
		defer c.stop()
		c.after(time.Second, one)
		c.Apply(servers1("b"))
		c.after(10*time.Second, one)
		c.sources("b connecting")
		b.do(func() { b.mute = false })
		c.after(time.Minute, two)
		c.Apply(Config{})
		c.after(time.Second)
		if len(a.conns)+len(b.conns) != 0 {
			t.Error("a connection is left")
		}
	})
}

// Whatever a server sends, the client takes VRPs or ends the connection.
func FuzzServer(f *testing.F) {
	t1 := timers{refresh: time.Hour, retry: time.Minute, expire: 2 * time.Hour}
	f.Add(slices.Concat(cacheResponse(1, 7), prefixPDU(1, one, 1), prefixPDU(1, three, 1), routerKey(), endOfData(1, 7, 2, t1)))
	f.Add(slices.Concat(cacheResponse(0, 7), prefixPDU(0, one, 1), prefixPDU(0, one, 0), endOfData(0, 7, 2, t1)))
	f.Add(bytesOf(rtr.NewRTRErrorReport(4, []byte("12345678"), []byte("x"))))
	f.Add(slices.Concat(bytesOf(rtr.NewRTRSerialNotify(1, 2)), bytesOf(rtr.NewRTRCacheReset())))
	f.Add([]byte{1, 10, 0, 0, 0, 0, 0, 16, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	log := logrus.New()
	log.SetOutput(io.Discard)
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, ours) })
		wg.Go(func() { _, _ = ours.Write(b); _ = ours.Close() })
		dialled := false
		o := Options{Log: logrus.NewEntry(log), Dial: func(context.Context, Server) (net.Conn, error) {
			if dialled {
				return nil, errors.New("once is enough")
			}
			dialled = true
			return theirs, nil
		}}
		g := newServers([]Server{{Address: "fuzz"}}, time.Hour, nil, &o, func() {})
		_ = g.list[0].connect(context.Background(), version1)
		_ = theirs.Close()
		wg.Wait()
		for _, v := range g.current(time.Now()).data.vrps {
			if err := v.check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
