package plane

import "go.fd.io/govpp/api"

// FlowHash says what of packets tells flows apart; the values are the API's (ip_flow_hash_config of ip.api).
type FlowHash uint8

// What may be part of it.
const (
	HashSource FlowHash = 1 << iota
	HashDestination
	HashSourcePort
	HashDestinationPort
	HashProtocol
	HashReverse   // source and destination change places
	HashSymmetric // a flow and its answers are one
	HashFlowLabel // of IPv6

	hashDefault = HashSource | HashDestination | HashSourcePort | HashDestinationPort | HashProtocol
)

// SetFlowHash sets a table's, for set_ip_flow_hash(_v2). Error: NO_SUCH_FIB.
func (p *Plane) SetFlowHash(tableID uint32, ip6 bool, h FlowHash) error {
	p.ctl.Lock()
	defer p.ctl.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tables[tableKey{tableID, ip6}]
	if t == nil {
		return api.NO_SUCH_FIB
	}
	t.hash = h
	return nil
}

// flowHash mixes what tells flows apart. Fragments have no ports.
func (w *worker) flowHash(b []byte, what FlowHash) uint32 {
	var proto byte
	var source, destination, sourcePort, destinationPort, label uint64
	at := 0 // of ports
	if b[0]>>4 == 4 {
		proto, source, destination = b[9], uint64(get32(b[12:])), uint64(get32(b[16:]))
		if get16(b[6:])&0x3fff == 0 {
			at = int(b[0]&15) * 4
		}
	} else {
		proto, source, destination = b[6], mix16(b[8:24]), mix16(b[24:40])
		label = uint64(get32(b) & 0xfffff)
		at = header6Len
	}
	if at > 0 && (proto == protoTCP || proto == protoUDP) && len(b) >= at+4 {
		sourcePort, destinationPort = uint64(get16(b[at:])), uint64(get16(b[at+2:]))
	}
	only := func(v uint64, flag FlowHash) uint64 {
		if what&flag == 0 {
			return 0
		}
		return v
	}
	source, destination = only(source, HashSource), only(destination, HashDestination)
	sourcePort, destinationPort = only(sourcePort, HashSourcePort), only(destinationPort, HashDestinationPort)
	if what&HashReverse != 0 || what&HashSymmetric != 0 && (source > destination || source == destination && sourcePort > destinationPort) {
		source, destination = destination, source
		sourcePort, destinationPort = destinationPort, sourcePort
	}
	h := source*0x9e3779b97f4a7c15 ^ destination ^ only(label, HashFlowLabel)<<40 ^ uint64(w.p.seed)
	h = (h ^ h>>33 ^ only(uint64(proto), HashProtocol)) * 0xff51afd7ed558ccd
	h = (h ^ h>>33 ^ (sourcePort<<16 | destinationPort)) * 0xc4ceb9fe1a85ec53
	return uint32(h ^ h>>32)
}

// mix16 is an address of IPv6 in 8 bytes.
func mix16(b []byte) uint64 {
	return (uint64(get32(b))<<32|uint64(get32(b[4:])))*0x9e3779b97f4a7c15 ^ (uint64(get32(b[8:]))<<32 | uint64(get32(b[12:])))
}
