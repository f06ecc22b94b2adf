package vppagent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/acl"
	interfaces "go.fd.io/govpp/binapi/interface"
	"go.fd.io/govpp/binapi/interface_types"
	"go.fd.io/govpp/binapi/ip"
	"go.fd.io/govpp/binapi/ip_neighbor"
	"go.fd.io/govpp/binapi/ip_types"
	"go.fd.io/govpp/binapi/memif"

	"rlr/binapi"
)

// What the dataplane has. Everything the agent decides, it decides from a fresh look; what it did before is not remembered.

// comparePrefixes orders by family, address and length.
func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// noInterface is the API's ~0.
const noInterface = binapi.AnyInterface

// observed is an interface of the dataplane.
type observed struct {
	index       uint32
	name        string
	tag         string
	device      string
	mac         [6]byte
	admin, link bool
	mtu         uint32 // of IP packets
	table4      uint32
	table6      uint32
	addresses   []netip.Prefix // sorted; without the link-local one
	linkLocal   netip.Addr     // invalid: IPv6 is not enabled
	lender      uint32         // of addresses; or noInterface
	neighbors   []observedNeighbor
	memif       *memif.MemifDetails
	aclIn       []uint32 // indexes of ACLs
	aclOut      []uint32
}

// observedNeighbor is a static neighbour entry.
type observedNeighbor struct {
	addr netip.Addr
	mac  [6]byte
}

// table is an IPv4 or IPv6 FIB table.
type table struct {
	id  uint32
	ip6 bool
}

// world is what a look at the dataplane shows.
type world struct {
	interfaces map[uint32]*observed
	tables     map[table]string  // name
	sockets    map[uint32]string // memif sockets
	acls       map[uint32]*acl.ACLDetails
}

// byName returns our interface of that name, or nil.
func (w *world) byName(cfg *Config, name string) *observed {
	for _, o := range w.sorted() {
		if own, _, ours := cfg.ownName(o.tag); ours && own == name {
			return o
		}
	}
	return nil
}

func (w *world) sorted() []*observed {
	list := make([]*observed, 0, len(w.interfaces))
	for _, o := range w.interfaces {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *observed) int { return int(int64(a.index) - int64(b.index)) })
	return list
}

// links looks at the interfaces' names, tags and states: one request.
func links(ctx context.Context, s *session) (map[uint32]*observed, error) {
	found := make(map[uint32]*observed)
	err := dump(ctx, s, &interfaces.SwInterfaceDump{SwIfIndex: interface_types.InterfaceIndex(noInterface)},
		func(d *interfaces.SwInterfaceDetails) {
			o := &observed{
				index: uint32(d.SwIfIndex), name: d.InterfaceName, tag: d.Tag, device: d.InterfaceDevType, mac: d.L2Address,
				admin:  d.Flags&interface_types.IF_STATUS_API_FLAG_ADMIN_UP != 0,
				link:   d.Flags&interface_types.IF_STATUS_API_FLAG_LINK_UP != 0,
				lender: noInterface,
			}
			if len(d.Mtu) > 0 {
				o.mtu = d.Mtu[interface_types.MTU_PROTO_API_L3]
			}
			found[o.index] = o
		})
	return found, err
}

// look asks for all there is to know of the interfaces that match, and of tables and sockets. The questions are all under way
// at once: an idle VPP takes milliseconds to wake up for each batch, not for each question.
func look(ctx context.Context, s *session, hasMemif bool, match func(*observed) bool) (*world, error) {
	all, err := links(ctx, s)
	if err != nil {
		return nil, err
	}
	w := &world{interfaces: all, tables: make(map[table]string), sockets: make(map[uint32]string)}
	var q questions
	q.aclDetails(ctx, s, w)
	for _, o := range all {
		if match(o) {
			q.interfaceDetails(ctx, s, o)
		}
	}
	q.ask(func() error {
		return dump(ctx, s, &ip.IPTableDump{}, func(d *ip.IPTableDetails) {
			w.tables[table{d.Table.TableID, d.Table.IsIP6}] = d.Table.Name
		})
	})
	q.ask(func() error {
		return dump(ctx, s, &ip.IPUnnumberedDump{SwIfIndex: interface_types.InterfaceIndex(noInterface)},
			func(d *ip.IPUnnumberedDetails) {
				if o := all[uint32(d.SwIfIndex)]; o != nil {
					o.lender = uint32(d.IPSwIfIndex)
				}
			})
	})
	if hasMemif {
		q.ask(func() error {
			return dump(ctx, s, &memif.MemifSocketFilenameDump{}, func(d *memif.MemifSocketFilenameDetails) {
				w.sockets[d.SocketID] = d.SocketFilename
			})
		})
		q.ask(func() error {
			return dump(ctx, s, &memif.MemifDump{}, func(d *memif.MemifDetails) {
				if o := all[uint32(d.SwIfIndex)]; o != nil {
					o.memif = d
				}
			})
		})
	}
	return w, q.wait()
}

// questions are requests that are under way together.
type questions struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func (q *questions) ask(f func() error) {
	q.wg.Go(func() {
		// An interface that went away since it was listed is no error: the event of its end leads to another look.
		if err := f(); err != nil && !isGone(err) {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.err = errors.Join(q.err, err)
		}
	})
}

func (q *questions) wait() error {
	q.wg.Wait()
	return q.err
}

func isGone(err error) bool {
	return errors.Is(err, api.INVALID_SW_IF_INDEX) || errors.Is(err, api.INVALID_SW_IF_INDEX_2)
}

// interfaceDetails fills in what sw_interface_dump does not tell.
func (q *questions) interfaceDetails(ctx context.Context, s *session, o *observed) {
	index := interface_types.InterfaceIndex(o.index)
	q.interfaceACLs(ctx, s, o)
	for _, ip6 := range []bool{false, true} {
		q.ask(func() error {
			return dump(ctx, s, &ip.IPAddressDump{SwIfIndex: index, IsIPv6: ip6}, func(d *ip.IPAddressDetails) {
				p := binapi.FromAddressWithPrefix(d.Prefix)
				if !p.IsValid() || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
					return
				}
				at, there := slices.BinarySearchFunc(o.addresses, p, comparePrefixes)
				if !there {
					o.addresses = slices.Insert(o.addresses, at, p)
				}
			})
		})
		q.ask(func() error {
			var reply interfaces.SwInterfaceGetTableReply
			if err := s.call(ctx, &interfaces.SwInterfaceGetTable{SwIfIndex: index, IsIPv6: ip6}, &reply); err != nil {
				return err
			}
			if ip6 {
				o.table6 = reply.VrfID
			} else {
				o.table4 = reply.VrfID
			}
			return nil
		})
		q.ask(func() error {
			af := ip_types.ADDRESS_IP4
			if ip6 {
				af = ip_types.ADDRESS_IP6
			}
			return dump(ctx, s, &ip_neighbor.IPNeighborDump{SwIfIndex: index, Af: af}, func(d *ip_neighbor.IPNeighborDetails) {
				if d.Neighbor.Flags&ip_neighbor.IP_API_NEIGHBOR_FLAG_STATIC == 0 {
					return
				}
				o.neighbors = append(o.neighbors, observedNeighbor{binapi.FromAddress(d.Neighbor.IPAddress), d.Neighbor.MacAddress})
			})
		})
	}
	q.ask(func() error {
		var reply ip.SwInterfaceIP6GetLinkLocalAddressReply
		err := s.call(ctx, &ip.SwInterfaceIP6GetLinkLocalAddress{SwIfIndex: index}, &reply)
		var refused api.VPPApiError
		switch {
		case errors.As(err, &refused):
			return nil // IPv6 is not enabled
		case err != nil:
			return err
		}
		if a := binapi.FromIP6(reply.IP); !a.IsUnspecified() {
			o.linkLocal = a
		}
		return nil
	})
}

// errGone reports that an interface that was just made has gone again.
var errGone = errors.New("interface vanished")

// lookAt looks at one interface.
func lookAt(ctx context.Context, s *session, index uint32) (*observed, error) {
	all, err := links(ctx, s)
	if err != nil {
		return nil, err
	}
	o := all[index]
	if o == nil {
		return nil, fmt.Errorf("sw_if_index %d: %w", index, errGone)
	}
	var q questions
	q.interfaceDetails(ctx, s, o)
	return o, q.wait()
}
