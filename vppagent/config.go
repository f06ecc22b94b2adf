package vppagent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"go.fd.io/govpp/binapi/memif"
)

// Config is all that the router wants of the dataplane besides routes.
type Config struct {
	Router     string // part of what marks things as ours
	Interfaces []Interface
	Tables     []Table // VRFs; table 0 need not be named
	ACLs       []ACL
	FlowHash   FlowHash // of every table
	Learn      bool     // Dump tells others' routes, too
}

// FlowHash says what of packets tells the flows apart that may take different paths.
type FlowHash uint8

// What a flow may be.
const (
	HashPorts     FlowHash = iota // addresses, protocol and ports: VPP's default
	HashAddresses                 // addresses alone
	HashFlowLabel                 // as HashPorts, and IPv6's flow label
)

// Table is an IPv4 and an IPv6 FIB table of the same id.
type Table struct {
	ID   uint32
	Name string
}

// Interface is an interface that the agent creates. Exactly one of Loopback and Memif is set.
type Interface struct {
	Name     string // the router's; also the dataplane's where the API allows it
	Loopback *Loopback
	Memif    *Memif

	MAC        net.HardwareAddr // 6 bytes; nil: the dataplane makes one up
	MTU        int              // of IP packets, bytes; 0: VPP's default, 9000
	Addresses  []netip.Prefix   // host bits kept; an address of fe80::/10 becomes the link-local one
	Unnumbered string           // the interface that lends its addresses
	Table      uint32
	Neighbors  []StaticNeighbor
	ACLIn      []string // names of ACLs for packets that come in, in the order in which they are asked
	ACLOut     []string // and for those that go out
	Guard      Guard
	Enabled    bool // administratively up
	Advertise  bool // send router advertisements, and look for the router on the link; it must have IPv6
	Bare       bool // advertise without the MAC address: behind the link's other end it is nobody's
}

// Loopback is an interface of the dataplane itself.
type Loopback struct{}

// Memif is a shared-memory cable to another process.
type Memif struct {
	Socket     string // absolute path
	ID         uint32 // tells cables with one socket apart; the same at both ends
	Role       MemifRole
	Mode       MemifMode
	RingSize   int    // descriptors, a power of two; 0: 1024
	BufferSize int    // bytes; 0: 2048
	Queues     int    // pairs; 0: 1
	Secret     string // up to 24 bytes, the same at both ends
}

// MemifRole is who listens.
type MemifRole uint8

// Roles.
const (
	MemifMaster MemifRole = iota // listens
	MemifSlave                   // connects
)

// MemifMode is what the cable carries.
type MemifMode uint8

// Modes.
const (
	MemifEthernet MemifMode = iota
	MemifIP
)

// StaticNeighbor is an ARP or ND entry that is not learned.
type StaticNeighbor struct {
	Address netip.Addr
	MAC     net.HardwareAddr
}

// maxTag is the longest tag of an interface, and name of a table, without the terminating zero.
const maxTag = 63

// tag marks an interface as ours, by name, and says with what parameters it was created: VPP cannot tell them all.
func (c *Config) tag(i *Interface) string {
	return c.tagPrefix() + i.Name + "/" + i.creation()
}

func (c *Config) tagPrefix() string { return "rlr/" + c.Router + "/" }

// ownName takes the interface's name and creation out of a tag of ours.
func (c *Config) ownName(tag string) (name, creation string, ours bool) {
	rest, ours := strings.CutPrefix(tag, c.tagPrefix())
	if !ours {
		return "", "", false
	}
	at := strings.LastIndexByte(rest, '/')
	if at < 0 {
		return "", "", false
	}
	return rest[:at], rest[at+1:], true
}

// creation digests what can only be given when an interface is created.
func (i *Interface) creation() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mac %s\n", i.MAC)
	if m := i.Memif; m != nil {
		fmt.Fprintf(&b, "memif %q %d %d %d %d %d %d %q\n",
			m.Socket, m.ID, m.Role, m.Mode, m.ringSize(), m.bufferSize(), m.queues(), m.Secret)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:4])
}

func (m *Memif) ringSize() int   { return orDefault(m.RingSize, 1024) }
func (m *Memif) bufferSize() int { return orDefault(m.BufferSize, 2048) }
func (m *Memif) queues() int     { return orDefault(m.Queues, 1) }

func (m *Memif) apiRole() memif.MemifRole {
	if m.Role == MemifSlave {
		return memif.MEMIF_ROLE_API_SLAVE
	}
	return memif.MEMIF_ROLE_API_MASTER
}

func (m *Memif) apiMode() memif.MemifMode {
	if m.Mode == MemifIP {
		return memif.MEMIF_MODE_API_IP
	}
	return memif.MEMIF_MODE_API_ETHERNET
}

func orDefault(n, d int) int {
	if n == 0 {
		return d
	}
	return n
}

// check refuses what could not even be tried.
func (c *Config) check(i *Interface) error {
	switch {
	case (i.Loopback == nil) == (i.Memif == nil):
		return fmt.Errorf("exactly one kind of interface must be given")
	case len(c.tag(i)) > maxTag:
		return fmt.Errorf("the names of router and interface are too long for VPP's tag (%d bytes too many)", len(c.tag(i))-maxTag)
	case i.MAC != nil && len(i.MAC) != 6:
		return fmt.Errorf("MAC address %v is not 6 bytes long", i.MAC)
	case i.MTU < 0 || i.MTU > 65535:
		return fmt.Errorf("MTU %d is out of range", i.MTU)
	}
	if m := i.Memif; m != nil {
		switch {
		case len(m.Socket) > 107 || m.Socket == "":
			return fmt.Errorf("memif socket path has %d bytes, between 1 and 107 fit", len(m.Socket))
		case len(m.Secret) > 24:
			return fmt.Errorf("memif secret is longer than 24 bytes")
		case m.ringSize() < 1 || m.ringSize() > 32768 || m.bufferSize() < 1 || m.bufferSize() > 65535 || m.queues() < 1 || m.queues() > 255:
			return fmt.Errorf("memif ring size %d, buffer size %d or queues %d is out of range", m.RingSize, m.BufferSize, m.Queues)
		}
	}
	return nil
}

// addresses splits the configured addresses into the link-local one, if any, and the others.
func (i *Interface) addresses() (linkLocal netip.Addr, others []netip.Prefix) {
	for _, p := range i.Addresses {
		if p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			linkLocal = p.Addr().WithZone("")
		} else if p.IsValid() && !slices.Contains(others, p) {
			others = append(others, p)
		}
	}
	return linkLocal, others
}

// clone lets the caller keep what it gave.
func (c Config) clone() Config {
	c.Interfaces = slices.Clone(c.Interfaces)
	c.Tables = slices.Clone(c.Tables)
	c.ACLs = slices.Clone(c.ACLs)
	for n := range c.ACLs {
		c.ACLs[n].Rules = slices.Clone(c.ACLs[n].Rules)
	}
	for n := range c.Interfaces {
		i := &c.Interfaces[n]
		i.Addresses = slices.Clone(i.Addresses)
		i.Neighbors = slices.Clone(i.Neighbors)
		i.ACLIn, i.ACLOut = slices.Clone(i.ACLIn), slices.Clone(i.ACLOut)
		if i.Memif != nil {
			m := *i.Memif
			i.Memif = &m
		}
	}
	return c
}
