package plane

import (
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"
)

// NoInterface is VPP's ~0: no interface given.
const NoInterface = ^uint32(0)

// Config of a plane. The zero value is usable.
type Config struct {
	Log      *logrus.Entry // nil: nothing is logged
	MaxFrame int           // longest ethernet frame taken or made, bytes; 0 = 9022 (an MTU of 9000, and a header with two tags)
}

// Kinds of interfaces, as VPP's device classes are called in the API's interface_dev_type.
const (
	KindLocal    = "local"
	KindLoopback = "Loopback"
	KindMemif    = "memif"
	KindPort     = "port" // given by Config's user with AttachPort
)

// MTU holds an interface's packet MTUs in bytes, in the order of sw_interface_set_mtu. IP4 and IP6 of 0 mean L3.
type MTU struct {
	L3, IP4, IP6, MPLS uint32
}

// Interface is a snapshot of an interface.
type Interface struct {
	Index      uint32
	Name       string // "local0", "loop0", "memif1/0", or what SetName gave
	Tag        string
	Kind       string
	MAC        [6]byte
	AdminUp    bool
	LinkUp     bool
	MTU        MTU    // L3
	LinkMTU    uint32 // L2 frame payload that the device can carry
	Table4     uint32
	Table6     uint32
	Addresses  []netip.Prefix // both families, in the order of configuration; without the link-local one
	LinkLocal  netip.Addr     // valid while IP6Enabled
	IP6Enabled bool
	Unnumbered uint32 // lender's index, or NoInterface
	Memif      *MemifInfo
	Counters   Counters
}

// Counters of an interface since it was created.
type Counters struct {
	RxPackets, RxBytes   uint64
	TxPackets, TxBytes   uint64
	Drops                uint64 // packets that came in here and went nowhere, whatever the reason
	Punts                uint64 // packets handed to local delivery
	IP4, IP6             uint64 // packets received
	RxNoBuf, RxMiss      uint64
	RxError, TxError     uint64 // TxError: no room in the ring, or the link was down
	RxUnicast, TxUnicast uint64
	RxMulticast          uint64
	TxMulticast          uint64
	RxBroadcast          uint64
	TxBroadcast          uint64
}

// MemifRole says which side of the memif protocol an interface takes.
type MemifRole uint8

// Roles, with the API's values.
const (
	MemifMaster MemifRole = 0
	MemifSlave  MemifRole = 1
)

// MemifMode says what a memif carries.
type MemifMode uint8

// Modes, with the API's values.
const (
	MemifEthernet MemifMode = 0
	MemifIP       MemifMode = 1
)

// MemifConfig is what memif_create_v2 asks for. Zero sizes mean VPP's defaults.
type MemifConfig struct {
	SocketID   uint32
	ID         uint32
	Role       MemifRole
	Mode       MemifMode
	RingSize   uint32
	BufferSize uint16
	Queues     uint8
	MAC        [6]byte // zero: made up
	Secret     string
}

// MemifInfo is the memif part of an Interface, for memif_dump.
type MemifInfo struct {
	MemifConfig
	Socket string // path
}

// PathType is VPP's fib_path_type, with the API's values.
type PathType uint8

// Path types.
const (
	PathNormal       PathType = 0
	PathLocal        PathType = 1 // delivered to this node
	PathDrop         PathType = 2
	PathUDPEncap     PathType = 3
	PathBIERImp      PathType = 4
	PathUnreachable  PathType = 5 // ICMP unreachable, host
	PathProhibit     PathType = 6 // ICMP administratively prohibited
	PathSourceLookup PathType = 7
	PathDVR          PathType = 8
	PathInterfaceRx  PathType = 9
	PathClassify     PathType = 10
)

// Path is one way of a route.
//
// A PathNormal with an interface and no address is attached: destinations are neighbours on the interface. With both it is an
// attached next hop. With an address alone it is recursive: the address is looked up in TableID. With neither, the packet's
// destination is looked up again in TableID.
type Path struct {
	Type       PathType
	Addr       netip.Addr // without zone; of the other family for RFC 8950
	SwIfIndex  uint32     // or NoInterface
	TableID    uint32
	Weight     uint8 // 0 counts as 1
	Preference uint8 // only the paths of the lowest usable preference forward
	Flags      uint8 // fib_path_flags of the API, kept for dumps
}

// RouteUpdate is what ip_route_add_del(_v2) gives for a prefix.
type RouteUpdate struct {
	Source    uint8
	Multipath bool // add to or take from the source's paths instead of replacing or removing them all
	Paths     []Path
}

// RouteEntry is an entry of a table.
type RouteEntry struct {
	Table      uint32
	Prefix     netip.Prefix
	Source     uint8  // the best source, whose Paths forward
	Paths      []Path // shared: not to be changed
	StatsIndex uint32
	Sources    []uint8 // all that hold the entry, best first
}

// Source is a FIB source. The lower priority wins.
type Source struct {
	ID       uint8
	Name     string
	Priority uint8
}

// Table is a FIB table of one family.
type Table struct {
	ID   uint32
	IP6  bool
	Name string
}

// Neighbor is an ARP or ND entry.
type Neighbor struct {
	Interface uint32
	Addr      netip.Addr // without zone
	MAC       [6]byte
	Static    bool
	NoFIB     bool          // no /32 or /128 host route for it
	Age       time.Duration // since it was last confirmed; 0 for static ones
}

// EventKind tells Events apart.
type EventKind uint8

// Event kinds.
const (
	EventInterface       EventKind = iota + 1 // created, or its admin or link state changed
	EventDeleted                              // the interface is gone
	EventNeighborAdded                        // learned, or its MAC changed
	EventNeighborRemoved                      // aged out or withdrawn
	EventRouterAdvert                         // received
	EventBFD                                  // a session's state changed
)

// Event is something that happened in the plane.
type Event struct {
	Kind      EventKind
	Interface uint32
	AdminUp   bool
	LinkUp    bool
	Neighbor  Neighbor
	Advert    *RouterAdvert
	BFD       *BFDSession
}

// PingRequest is a series of echo requests.
type PingRequest struct {
	Table     uint32
	Interface uint32 // or NoInterface; needed for link-local destinations
	Dst       netip.Addr
	Count     int           // 0 = 5
	Interval  time.Duration // 0 = 1 s
	Size      int           // payload bytes; 0 = 56
	TTL       uint8         // 0 = 64
}

// PingReply is the answer to one echo request.
type PingReply struct {
	Seq   int // of 16 bits: a series of more than 65,536 requests uses them again
	From  netip.Addr
	RTT   time.Duration
	TTL   uint8
	Bytes int  // of the ICMP message
	Reply bool // false: an ICMP error came, of Type and Code
	Type  uint8
	Code  uint8
}

// PingResult sums up a series.
type PingResult struct {
	Sent, Received int
}
