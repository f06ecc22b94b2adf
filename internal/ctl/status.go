// Package ctl is the protocol between the rlr command and a running router: requests and streamed answers over
// control.sock, and the Status structs that `--json` prints.
package ctl

// The structs of this file are what `rlr … --json` prints: additive and stable. Times are seconds, sizes bytes, rates per
// second unless a name says otherwise.

// Status answers `show status`.
type Status struct {
	Name      string          `json:"name"`
	Version   string          `json:"version"`
	AS        uint32          `json:"as"`
	RouterID  string          `json:"router_id"`
	PID       int             `json:"pid"`
	Config    string          `json:"config"`
	Dataplane DataplaneStatus `json:"dataplane"`
	UptimeS   float64         `json:"uptime_s"`
	Routes    int             `json:"routes"`
	FIB       FIBStatus       `json:"fib"`
	Sessions  SessionCount    `json:"sessions"`
	RSSBytes  uint64          `json:"rss_bytes"`
	CPUS      float64         `json:"cpu_s"` // user + system time that the process has used
}

// FIBStatus says how what the protocols want gets into the dataplane.
type FIBStatus struct {
	Decoupled     bool           `json:"decoupled"`             // by `rlr fib decouple`: nothing is written
	DecoupledS    float64        `json:"decoupled_s,omitempty"` // for how long
	Synced        bool           `json:"synced"`                // the dataplane's routes have been read since it (re)connected
	Complete      bool           `json:"complete"`              // every protocol has said what it wants, so left-overs are deleted
	States        map[string]int `json:"states"`                // routes in each state that any is in
	Learned       int            `json:"learned"`               // routes of others in the dataplane
	Bytes         uint64         `json:"bytes"`                 // of the router's memory for this table, BGP's paths not counted
	BytesPerRoute uint64         `json:"bytes_per_route"`       // 0 without routes
	Dumps         uint64         `json:"dumps"`                 // readings of the dataplane's routes since the start
	DumpS         float64        `json:"dump_s"`                // what the latest took
	Audits        uint64         `json:"audits"`                // of the readings, those without a reason
	AuditEveryS   float64        `json:"audit_every_s"`         // 0: never
	Drift         Drift          `json:"drift"`
	Unsettled     int            `json:"unsettled"` // routes that wait to be looked at
	Written       uint64         `json:"written"`   // confirmed by the dataplane since the start
	Deleted       uint64         `json:"deleted"`
	Refused       uint64         `json:"refused"`
	Unanswered    uint64         `json:"unanswered"` // lost with a connection
	Latency       Latency        `json:"latency"`
}

// Latency is how long single routes took from the arrival of a neighbour's UPDATE to the dataplane's confirmation.
type Latency struct {
	Count    uint64  `json:"count"` // since the router started; the times are of the latest 512
	MedianMs float64 `json:"median_ms"`
	P99Ms    float64 `json:"p99_ms"`
	MaxMs    float64 `json:"max_ms"`
}

// Drift counts what others did to our routes in the dataplane, as audits found and repaired it.
type Drift struct {
	Missing  uint64   `json:"missing"`
	Changed  uint64   `json:"changed"`
	Extra    uint64   `json:"extra"`
	LastAgoS float64  `json:"last_ago_s,omitempty"`
	First    []string `json:"first,omitempty"` // prefixes of the latest time, ten at most
}

// SessionCount counts BGP sessions.
type SessionCount struct {
	Total       int `json:"total"`
	Established int `json:"established"`
}

// DataplaneStatus says which dataplane forwards.
type DataplaneStatus struct {
	Kind      string  `json:"kind"`  // vpp or embedded
	State     string  `json:"state"` // connecting, connected
	Version   string  `json:"version"`
	PID       int     `json:"pid"`
	APISocket string  `json:"api_socket"`
	UptimeS   float64 `json:"uptime_s"`
	RSSBytes  uint64  `json:"rss_bytes,omitempty"` // of a VPP that we started
	PSSBytes  uint64  `json:"pss_bytes,omitempty"`
	Restarts  int     `json:"restarts"`                 // since the router started
	Error     string  `json:"error,omitempty"`          // why it is not connected
	Instead   string  `json:"instead_of_vpp,omitempty"` // why it is not the VPP that is installed, with kind auto

	Heaps []Heap `json:"heaps,omitempty"` // of a VPP; it tells of them every ten seconds

	// Messages of its API that are not as the router knows them. It is refused for a required one; without an optional one
	// only the feature is missing.
	Differs []APIMessage `json:"differs,omitempty"`
}

// Heap is how full a memory of the dataplane is that cannot grow: what it cannot take, the dataplane would die of, and so routes
// fail before that.
type Heap struct {
	Name       string `json:"name"` // main heap, stat segment
	TotalBytes uint64 `json:"total_bytes"`
	UsedBytes  uint64 `json:"used_bytes"`
}

// APIMessage is a message of VPP's binary API, with the CRC of its definition that the router knows and that of the dataplane.
type APIMessage struct {
	Message string `json:"message"`
	Feature string `json:"feature"`
	Need    string `json:"need"` // required or optional
	Wanted  string `json:"wanted"`
	Found   string `json:"found,omitempty"` // absent: the dataplane does not have the message
}

// Interface is a row of `show interfaces`.
type Interface struct {
	Name       string   `json:"name"` // the configuration's
	Dataplane  string   `json:"dataplane_name"`
	SwIfIndex  uint32   `json:"sw_if_index"`
	Kind       string   `json:"kind"` // loopback, memif, wireguard, other
	Admin      bool     `json:"admin_up"`
	Link       bool     `json:"link_up"`
	MTU        uint32   `json:"mtu"`
	MAC        string   `json:"mac,omitempty"`
	VRF        string   `json:"vrf"`
	Addresses  []string `json:"addresses"`
	Unnumbered string   `json:"unnumbered,omitempty"`
	RxPackets  uint64   `json:"rx_packets"`
	RxBytes    uint64   `json:"rx_bytes"`
	TxPackets  uint64   `json:"tx_packets"`
	TxBytes    uint64   `json:"tx_bytes"`
	Drops      uint64   `json:"drops"`
	RxErrors   uint64   `json:"rx_errors"`
	TxErrors   uint64   `json:"tx_errors"`
	State      string   `json:"state"`           // ok, pending, failed
	Error      string   `json:"error,omitempty"` // why not ok
}

// Neighbor is a row of `show neighbors`: an ARP or ND entry of the dataplane.
type Neighbor struct {
	Address   string  `json:"address"`
	MAC       string  `json:"mac"`
	Interface string  `json:"interface"`
	Static    bool    `json:"static"`
	AgeS      float64 `json:"age_s"`
}

// BGPSession is a row of `show bgp`.
type BGPSession struct {
	Name       string   `json:"name"`
	Address    string   `json:"address"`
	Interface  string   `json:"interface"`
	LocalAddr  string   `json:"local_address"`
	AS         uint32   `json:"as"`
	State      string   `json:"state"` // RFC 4271 §8.2.2: Idle, Connect, Active, OpenSent, OpenConfirm, Established
	UptimeS    float64  `json:"uptime_s"`
	Received   uint64   `json:"received"`
	Accepted   uint64   `json:"accepted"`
	Advertised uint64   `json:"advertised"`
	LastError  string   `json:"last_error"`
	Families   []string `json:"families"`
	HoldTimeS  float64  `json:"hold_time_s"`
	KeepaliveS float64  `json:"keepalive_s"`
	RouterID   string   `json:"router_id"` // the peer's
	VRF        string   `json:"vrf"`
	Flaps      uint64   `json:"flaps"`
	Disabled   bool     `json:"disabled"`
	Group      string   `json:"group,omitempty"`
	Runtime    bool     `json:"runtime,omitempty"` // added by a command, and not in the configuration file
	Dynamic    bool     `json:"dynamic,omitempty"` // it came by itself, from a prefix of bgp.dynamic

	// While BGP has its hands full with a large table, the figures that it has to count for the answer (Received, Accepted,
	// Advertised, GracefulRestart.Stale, HoldTimeS, KeepaliveS) are CountsAgeS old, or Uncounted and 0.
	CountsAgeS float64 `json:"counts_age_s,omitempty"`
	Uncounted  bool    `json:"uncounted,omitempty"`

	GracefulRestart *GracefulRestart `json:"graceful_restart,omitempty"`

	Prefixes  []FamilyPrefixes `json:"prefixes,omitempty"` // Received, Accepted, Advertised, of each family
	MaxPrefix []PrefixLimit    `json:"max_prefix,omitempty"`
	BFD       string           `json:"bfd,omitempty"`               // up, down, or "no answer" where it is not watched for that
	AddPath   string           `json:"add_path,omitempty"`          // agreed on: receive, send or both
	Role      string           `json:"role,omitempty"`              // ours (RFC 9234)
	Leaks     uint64           `json:"leaks,omitempty"`             // UPDATEs whose routes came the wrong way, by their OTC
	Malformed uint64           `json:"malformed_updates,omitempty"` // whose routes were taken as withdrawn (RFC 7606)
}

// FamilyPrefixes counts prefixes of a family, as a BGPSession does of all.
type FamilyPrefixes struct {
	Family     string `json:"family"`
	Received   uint64 `json:"received"`
	Accepted   uint64 `json:"accepted"`
	Advertised uint64 `json:"advertised"`
}

// PrefixLimit is a limit of the prefixes that a neighbour may announce, and what it has come to.
type PrefixLimit struct {
	Family   string `json:"family"`
	Limit    int    `json:"limit"`
	Action   string `json:"action"`   // block, warn, restart
	Prefixes int    `json:"prefixes"` // let in
	Blocked  uint64 `json:"blocked"`  // announcements that were not, since the neighbour was last asked for all
	Reached  bool   `json:"reached"`
}

// States of a GracefulRestart.
const (
	GracefulOff           = "off"            // by configuration
	GracefulNotNegotiated = "not negotiated" // no session yet, or the peer has not the capability
	GracefulNegotiated    = "negotiated"
	GracefulHelping       = "helping"    // the peer restarts: its routes are kept
	GracefulLastResort    = "long-lived" // the same beyond the restart time, and only used where there is nothing else
	GracefulRestarting    = "restarting" // we have restarted, and announce nothing before all neighbours have announced all
)

// GracefulRestart is the state of RFC 4724 and RFC 9494 with a neighbour.
type GracefulRestart struct {
	Mode           string   `json:"mode"`      // on, helper, off
	State          string   `json:"state"`     // one of the above
	Restarter      bool     `json:"restarter"` // we ask the peer to keep our routes
	PeerFamilies   []string `json:"peer_families"`
	PeerRestartS   float64  `json:"peer_restart_time_s"`
	PeerLongLivedS float64  `json:"peer_long_lived_s"` // 0: not agreed
	HelpingS       float64  `json:"helping_s,omitempty"`
	Stale          uint64   `json:"stale,omitempty"` // how many routes are kept, while there is no session
}

// Protocol is a row of `show protocols`, as birdc's: every source of routes.
type Protocol struct {
	Name    string  `json:"name"`
	Proto   string  `json:"proto"` // bgp, static, direct, learned, grpc
	Table   string  `json:"table"`
	State   string  `json:"state"` // up, start, down
	SinceS  float64 `json:"since_s"`
	Info    string  `json:"info"`
	Routes  int     `json:"routes"`
	Runtime bool    `json:"runtime,omitempty"` // as a BGPSession's
	Dynamic bool    `json:"dynamic,omitempty"`
}

// Route is a row of `show route`.
type Route struct {
	Prefix string `json:"prefix"`
	Table  string `json:"table"` // the VRF's name
	State  string `json:"state"` // installed, queued, pending, failed, shadowed, stale
	Error  string `json:"error,omitempty"`
	Paths  []Path `json:"paths"`
}

// Path is one way to a Route's prefix. Several paths with best set are an ECMP set.
type Path struct {
	Protocol    string   `json:"protocol"` // direct, static, bgp, learned, grpc
	Neighbor    string   `json:"neighbor"` // the BGP neighbour's name
	NextHop     string   `json:"nexthop"`
	Interface   string   `json:"interface"`
	Best        bool     `json:"best"`
	Kind        string   `json:"kind,omitempty"` // blackhole, unreachable, prohibit; empty is unicast
	Preference  int      `json:"preference"`     // BIRD's: direct 240, static 200, bgp 100, learned 10; ours: grpc 150
	ASPath      string   `json:"as_path"`
	Communities []string `json:"communities"`
	Large       []string `json:"large_communities,omitempty"`
	Origin      string   `json:"origin,omitempty"`
	LocalPref   uint32   `json:"local_pref,omitempty"`
	MED         uint32   `json:"med,omitempty"`
	Weight      uint8    `json:"weight"`
	AgeS        float64  `json:"age_s"`
	Stale       bool     `json:"stale,omitempty"`   // of a lost session, or not yet announced again by one that is back
	ROA         string   `json:"roa,omitempty"`     // valid, invalid or unknown (RFC 6811), of a BGP path where roa is configured
	Runtime     bool     `json:"runtime,omitempty"` // a static route that was added by a command, and is not in the configuration file
}

// FIBEntry is a row of `show fib`: what the dataplane holds, whoever put it there.
type FIBEntry struct {
	Prefix string    `json:"prefix"`
	Table  string    `json:"table"`
	Source string    `json:"source"` // VPP's name of the winning FIB source
	Paths  []FIBPath `json:"paths"`
}

// FIBPath is a path of an FIBEntry.
type FIBPath struct {
	Type      string `json:"type"` // normal, local, drop, unreachable, prohibit, …
	NextHop   string `json:"nexthop"`
	Interface string `json:"interface"`
	Weight    uint8  `json:"weight"`
	Backup    bool   `json:"backup,omitempty"` // used while no other path works
}

// BFDSession is a row of `show bfd`.
type BFDSession struct {
	Neighbor   string  `json:"neighbor"` // whose session it watches
	Interface  string  `json:"interface"`
	Local      string  `json:"local"`
	Peer       string  `json:"peer"`
	State      string  `json:"state"` // up, init, down, admin-down; failed, and Error says why the dataplane has none
	SinceS     float64 `json:"since_s"`
	IntervalMs float64 `json:"interval_ms"` // the least time between packets that we want, both ways
	Multiplier uint8   `json:"multiplier"`  // ours
	Error      string  `json:"error,omitempty"`
}

// WireGuard is a row of `show wireguard`.
type WireGuard struct {
	Name           string  `json:"name"`
	PublicKey      string  `json:"public_key"` // ours
	Listen         string  `json:"listen"`
	PeerKey        string  `json:"peer_public_key"`
	PresharedKey   bool    `json:"preshared_key"`
	Endpoint       string  `json:"endpoint"`
	HandshakeAgeS  float64 `json:"handshake_age_s"` // -1: none yet
	RxBytes        uint64  `json:"rx_bytes"`
	TxBytes        uint64  `json:"tx_bytes"`
	KeepaliveS     float64 `json:"keepalive_s"`
	DataplaneDrops uint64  `json:"dataplane_drops"` // frames that the dataplane had no room for
}

// ErrorRecord is a row of `show errors`: what is wrong now or was, and how often.
type ErrorRecord struct {
	Subsystem string  `json:"subsystem"`
	Object    string  `json:"object"`
	Error     string  `json:"error"`
	Count     uint64  `json:"count"`
	LastAgoS  float64 `json:"last_ago_s"`
}

// LogRecord is a row of `show log`.
type LogRecord struct {
	Time    string            `json:"time"` // RFC 3339 with milliseconds
	Level   string            `json:"level"`
	Message string            `json:"message"`
	Fields  map[string]string `json:"fields,omitempty"`
}

// ProbeRequest asks for a ping or a traceroute.
type ProbeRequest struct {
	Target    string  `json:"target"` // an address, with %interface for link-local
	Source    string  `json:"source,omitempty"`
	Interface string  `json:"interface,omitempty"`
	VRF       string  `json:"vrf,omitempty"`
	Count     int     `json:"count,omitempty"` // ping: 0 is until the caller goes; traceroute: for each hop
	IntervalS float64 `json:"interval_s,omitempty"`
	TimeoutS  float64 `json:"timeout_s,omitempty"`
	Size      int     `json:"size,omitempty"`     // payload bytes
	TTL       int     `json:"ttl,omitempty"`      // ping
	MaxHops   int     `json:"max_hops,omitempty"` // traceroute
	DontFrag  bool    `json:"dont_fragment,omitempty"`
}

// ProbeReply is one answer, streamed as it comes; ping and traceroute.
type ProbeReply struct {
	Seq   int     `json:"seq"`
	Hop   int     `json:"hop,omitempty"` // traceroute
	From  string  `json:"from"`          // "" when there was no answer
	RTTMs float64 `json:"rtt_ms"`
	TTL   int     `json:"ttl"`
	Bytes int     `json:"bytes"`
	Error string  `json:"error,omitempty"` // time exceeded, host unreachable, timeout, …
	Final bool    `json:"final,omitempty"` // traceroute: the target itself answered
}

// ProbeSummary ends a ping.
type ProbeSummary struct {
	Sent        int     `json:"sent"`
	Received    int     `json:"received"`
	LossPercent float64 `json:"loss_percent"`
	MinMs       float64 `json:"min_ms"`
	AvgMs       float64 `json:"avg_ms"`
	MaxMs       float64 `json:"max_ms"`
}
