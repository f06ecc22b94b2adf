package plane

// FIB sources: who may hold a route, and whose paths forward when several hold the same prefix. Ids, names and priorities are
// those of VPP's foreach_fib_source, so that a client's constants fit.

import (
	"go.fd.io/govpp/api"
)

// VPP's fixed FIB sources that the plane itself or its clients refer to.
const (
	SourceInvalid      uint8 = 0
	SourceSpecial      uint8 = 1
	SourceInterface    uint8 = 4
	SourceAPI          uint8 = 8
	SourceCLI          uint8 = 9
	SourceIP6ND        uint8 = 14
	SourceAdj          uint8 = 15
	SourceDefaultRoute uint8 = 20
)

// fixedSources in the order of their ids.
var fixedSources = []Source{
	{0, "invalid", 0xff},
	{1, "special", 0x00},
	{2, "classify", 0x01},
	{3, "proxy", 0x02},
	{4, "interface", 0x03},
	{5, "SR", 0x10},
	{6, "BIER", 0x20},
	{7, "6RD", 0x30},
	{8, "API", 0x80},
	{9, "CLI", 0x81},
	{10, "LISP", 0x90},
	{11, "MAP", 0xa0},
	{12, "DHCP", 0xb0},
	{13, "IPv6-proxy-nd", 0xc0},
	{14, "IPv6-nd", 0xc1},
	{15, "adjacency", 0xd0},
	{16, "mpls", 0xe0},
	{17, "attached_export", 0xf0},
	{18, "recursive-resolution", 0xfb},
	{19, "urpf-exempt", 0xfc},
	{20, "default-route", 0xfd},
	{21, "interpose", 0xfe},
}

// Sources lists all FIB sources by id, for fib_source_dump.
func (p *Plane) Sources() []Source {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return append([]Source(nil), p.sources...)
}

// AddSource makes a FIB source, for fib_source_add. As in VPP the name is not checked: each call makes another id.
// Errors: LIMIT_EXCEEDED when the 255 ids are used up.
func (p *Plane) AddSource(name string, priority uint8) (uint8, error) {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sources) >= 255 {
		return 0, api.LIMIT_EXCEEDED
	}
	id := uint8(len(p.sources))
	p.sources = append(p.sources, Source{ID: id, Name: name, Priority: priority})
	return id, nil
}

// betterSource reports whether source a's paths forward rather than b's. Of equal priorities the older source wins.
func (p *Plane) betterSource(a, b uint8) bool {
	pa, pb := p.sources[a].Priority, p.sources[b].Priority
	if pa != pb {
		return pa < pb
	}
	return a < b
}
