package vppagent

import "context"

// Counters of an interface since it was created.
type Counters struct {
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
	Drops, Punts       uint64
	RxErrors, TxErrors uint64
	RxNoBuf, RxMiss    uint64
}

// Names in the statistics segment (src/vnet/interface/stats.c).
const (
	statRx      = "/if/rx"
	statTx      = "/if/tx"
	statDrops   = "/if/drops"
	statPunt    = "/if/punt"
	statRxError = "/if/rx-error"
	statTxError = "/if/tx-error"
	statRxNoBuf = "/if/rx-no-buf"
	statRxMiss  = "/if/rx-miss"
)

// interfaceCounters reads those of all interfaces, by sw_if_index.
func interfaceCounters(ctx context.Context, socket string) (map[uint32]Counters, error) {
	read := map[string][][2]uint64{
		statRx: nil, statTx: nil, statDrops: nil, statPunt: nil, statRxError: nil, statTxError: nil, statRxNoBuf: nil, statRxMiss: nil,
	}
	if err := readCounters(ctx, socket, read); err != nil {
		return nil, err
	}
	n := 0
	for _, values := range read {
		n = max(n, len(values))
	}
	get := func(name string, i int) [2]uint64 {
		if values := read[name]; i < len(values) {
			return values[i]
		}
		return [2]uint64{}
	}
	all := make(map[uint32]Counters, n)
	for i := range n {
		rx, tx := get(statRx, i), get(statTx, i)
		all[uint32(i)] = Counters{
			RxPackets: rx[0], RxBytes: rx[1], TxPackets: tx[0], TxBytes: tx[1],
			Drops: get(statDrops, i)[0], Punts: get(statPunt, i)[0],
			RxErrors: get(statRxError, i)[0], TxErrors: get(statTxError, i)[0],
			RxNoBuf: get(statRxNoBuf, i)[0], RxMiss: get(statRxMiss, i)[0],
		}
	}
	return all, nil
}
