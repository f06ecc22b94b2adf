package vppagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"go.fd.io/govpp/binapi/classify"
	"go.fd.io/govpp/binapi/interface_types"

	"rlr/binapi"
)

// IPv4's "destination unreachable", among it "fragmentation needed", never gets as far as the punt: with the session layer
// enabled VPP looks for a UDP session that it is about, and frees it (src/vnet/session/transport.c; IPv6's are punted). So
// while IPv4 is probed, an input classifier on the router's own interfaces sends those for a probe's source to the table of
// lane 0, whose default route is the lane. All other packets pass it by. An interface that has a classifier already keeps
// that, and then such errors are missed, as they are on interfaces that are not the router's.

// catcher is the classifier.
type catcher struct {
	made       bool
	table      uint32
	interfaces map[uint32]bool    // what it is on, or cannot be on
	sources    map[netip.Addr]int // by how many probes
}

// Where in an IPv4 header without options, and the ICMP header after it (RFC 791 §3.1, RFC 792).
const (
	atVersion  = 0
	atFragment = 6
	atProtocol = 9
	atDst      = 16
	atICMPType = 20
	caught     = 32 // bytes that are looked at: two vectors of the classifier's
)

// catchMask is also how a classifier is known as ours. It wants the first fragment: the others have no ICMP header.
var catchMask = func() []byte {
	m := make([]byte, caught)
	m[atVersion], m[atProtocol], m[atICMPType] = 0xff, 0xff, 0xff
	m[atFragment], m[atFragment+1] = 0x1f, 0xff
	copy(m[atDst:], []byte{0xff, 0xff, 0xff, 0xff})
	return m
}()

func catchMatch(src netip.Addr) []byte {
	const protocolICMP, unreachable = 1, 3
	m := make([]byte, caught)
	m[atVersion], m[atProtocol], m[atICMPType] = 0x45, protocolICMP, unreachable
	copy(m[atDst:], src.AsSlice())
	return m
}

// catch sends unreachables for src to a lane, from now on.
func (c *catcher) catch(ctx context.Context, l *life, ln *lane, src netip.Addr) error {
	if !c.made {
		var reply classify.ClassifyAddDelTableReply
		err := l.s.call(ctx, &classify.ClassifyAddDelTable{
			IsAdd: true, TableIndex: none, Nbuckets: 16, MemorySize: 1 << 18, MatchNVectors: caught / 16,
			NextTableIndex: none, MissNextIndex: none, CurrentDataFlag: 1, Mask: catchMask,
		}, &reply)
		if err != nil {
			return err
		}
		*c = catcher{made: true, table: reply.NewTableIndex, interfaces: make(map[uint32]bool), sources: make(map[netip.Addr]int)}
	}
	if err := c.attach(ctx, l); err != nil {
		return err
	}
	if c.sources[src] == 0 {
		err := l.s.call(ctx, &classify.ClassifyAddDelSession{
			IsAdd: true, TableIndex: c.table, HitNextIndex: none, OpaqueIndex: none, Match: catchMatch(src),
			Action: classify.CLASSIFY_API_ACTION_SET_IP4_FIB_INDEX, Metadata: ln.tables[0],
		}, new(classify.ClassifyAddDelSessionReply))
		if err != nil {
			return err
		}
	}
	c.sources[src]++
	return nil
}

// none is the classifier's ~0: not given, or as without it.
const none = ^uint32(0)

func (c *catcher) release(ctx context.Context, l *life, src netip.Addr) {
	if c.sources[src] == 0 {
		return
	}
	if c.sources[src]--; c.sources[src] > 0 {
		return
	}
	delete(c.sources, src)
	err := l.s.call(ctx, &classify.ClassifyAddDelSession{TableIndex: c.table, Match: catchMatch(src)}, new(classify.ClassifyAddDelSessionReply))
	if err != nil {
		l.log.WithError(err).WithField("source", src).Debug("classifier session not removed") // it goes with the table
	}
}

// attach puts the classifier on interfaces of ours that do not have it.
func (c *catcher) attach(ctx context.Context, l *life) error {
	for _, index := range l.a.cableIndexes() {
		if c.interfaces[index] {
			continue
		}
		has, err := l.classifier(ctx, index)
		if err == nil && has == none {
			err = l.setClassifier(ctx, index, c.table, true)
		}
		if err != nil && !isGone(err) {
			return fmt.Errorf("sw_if_index %d: %w", index, err)
		}
		c.interfaces[index] = true
	}
	return nil
}

// detach takes it off an interface that is going to be deleted: VPP would remember it for the next one with that index.
func (p *probes) detach(ctx context.Context, l *life, index uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != l || !p.unreach.interfaces[index] {
		return nil
	}
	delete(p.unreach.interfaces, index)
	has, err := l.classifier(ctx, index)
	if err != nil || has != p.unreach.table {
		return err
	}
	return l.setClassifier(ctx, index, has, false)
}

func (l *life) classifier(ctx context.Context, index uint32) (table uint32, err error) {
	var reply classify.ClassifyTableByInterfaceReply
	err = l.s.call(ctx, &classify.ClassifyTableByInterface{SwIfIndex: interface_types.InterfaceIndex(index)}, &reply)
	return reply.IP4TableID, err
}

func (l *life) setClassifier(ctx context.Context, index, table uint32, add bool) error {
	return l.s.call(ctx, &classify.InputACLSetInterface{
		SwIfIndex: interface_types.InterfaceIndex(index), IP4TableIndex: table, IP6TableIndex: none, L2TableIndex: none, IsAdd: add,
	}, new(classify.InputACLSetInterfaceReply))
}

// sweepCatchers removes our classifiers, used or left over. The caller has the probes' lock.
func (l *life) sweepCatchers(ctx context.Context) error {
	if !l.report.Supports(binapi.Probe) {
		return nil
	}
	all, err := links(ctx, l.s)
	if err != nil {
		return err
	}
	cfg := l.a.config()
	var q questions
	var mu sync.Mutex
	on := make(map[uint32][]uint32) // interfaces by table
	for _, o := range all {
		if !strings.HasPrefix(o.tag, cfg.tagPrefix()) {
			continue
		}
		q.ask(func() error {
			table, err := l.classifier(ctx, o.index)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && table != none {
				on[table] = append(on[table], o.index)
			}
			return err
		})
	}
	errs := []error{q.wait()}
	if p := &l.a.probes; p.life == l && p.unreach.made && on[p.unreach.table] == nil { // it is on no interface just now
		on[p.unreach.table] = []uint32{}
	}
	for table, indexes := range on {
		errs = append(errs, l.sweepCatcher(ctx, table, indexes))
	}
	return errors.Join(errs...)
}

// sweepCatcher removes a classifier, if it is ours, from interfaces, and then its sessions: with only the table deleted VPP
// would keep the FIB table that they refer to.
func (l *life) sweepCatcher(ctx context.Context, table uint32, indexes []uint32) error {
	var info classify.ClassifyTableInfoReply
	if err := l.s.call(ctx, &classify.ClassifyTableInfo{TableID: table}, &info); err != nil || !bytes.Equal(info.Mask, catchMask) {
		return err
	}
	var errs []error
	for _, index := range indexes {
		errs = append(errs, l.setClassifier(ctx, index, table, false))
	}
	var sessions [][]byte
	err := dump(ctx, l.s, &classify.ClassifySessionDump{TableID: table}, func(d *classify.ClassifySessionDetails) {
		sessions = append(sessions, d.Match)
	})
	errs = append(errs, err)
	for _, m := range sessions {
		errs = append(errs, l.s.call(ctx, &classify.ClassifyAddDelSession{TableIndex: table, Match: m}, new(classify.ClassifyAddDelSessionReply)))
	}
	errs = append(errs, l.s.call(ctx, &classify.ClassifyAddDelTable{TableIndex: table}, new(classify.ClassifyAddDelTableReply)))
	return errors.Join(errs...)
}

// cableIndexes returns the indexes of our interfaces to others.
func (a *Agent) cableIndexes() (list []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		if !l.loopback {
			list = append(list, l.index)
		}
	}
	return list
}
