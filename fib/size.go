package fib

import "unsafe"

// The memory of the table, computed from the sizes of what is kept. A test compares it with what the runtime says.

// mapLoad is how much room of Go's maps is used on average: they double when 7/8 full.
const mapLoad = 0.65

func mapBytes(n int, slot uintptr) uint64 {
	return uint64(float64(n) * float64(slot+1) / mapLoad) // a control byte for each slot
}

// bytesLocked counts what a route costs: its entry, its key in the map, its share of actions, candidates beside the best one,
// places in queues, and what troubled or shadowed ones have beside.
func (s *Syncer) bytesLocked() uint64 {
	const pointer = unsafe.Sizeof(uintptr(0))
	n := mapBytes(len(s.entries), unsafe.Sizeof(key{})+pointer) + uint64(len(s.entries))*uint64(unsafe.Sizeof(entry{}))
	n += mapBytes(len(s.actions), 2*pointer+pointer) + uint64(len(s.actions))*uint64(unsafe.Sizeof(action{})+unsafe.Sizeof(NextHop{})+32)
	n += uint64(s.rivals) * uint64(unsafe.Sizeof(candidate{}))
	n += uint64(cap(s.urgent.items)+cap(s.queue.items)+cap(s.crowd.items)) * uint64(unsafe.Sizeof(queued{}))
	n += mapBytes(len(s.troubles), unsafe.Sizeof(key{})+pointer) + uint64(len(s.troubles))*uint64(unsafe.Sizeof(trouble{})+pointer)
	n += mapBytes(len(s.shadows)+len(s.learned), unsafe.Sizeof(key{}))
	n += mapBytes(len(s.connected), unsafe.Sizeof(key{})+unsafe.Sizeof(""))
	n += mapBytes(len(s.resolved), unsafe.Sizeof(lookup{})+pointer)
	for _, f := range s.feeds {
		n += mapBytes(len(f.listed), unsafe.Sizeof(key{}))
	}
	return n
}
