package vppagent

import (
	"context"
	"fmt"

	"go.fd.io/govpp/binapi/fib"
)

// sourcePriority places our routes among VPP's FIB sources; the lowest value wins. Above the API's 0x80 and the command
// line's 0x81: what an operator adds by hand beats what protocols say, as with a kernel's metrics. Interfaces (0x03) win
// always; neighbours' host routes (0xd0) and the default drop lose.
const sourcePriority = 0x90

// sources returns all of VPP's FIB sources by id.
func sources(ctx context.Context, s *session) (map[uint8]fib.FibSource, error) {
	all := make(map[uint8]fib.FibSource)
	err := dump(ctx, s, &fib.FibSourceDump{}, func(d *fib.FibSourceDetails) { all[d.Src.ID] = d.Src })
	return all, err
}

// source finds our FIB source by name, or adds it. VPP allocates another id on each addition, of 255, so it is looked for
// first; it cannot be deleted.
func source(ctx context.Context, s *session, name string) (id uint8, err error) {
	all, err := sources(ctx, s)
	if err != nil {
		return 0, err
	}
	for id, src := range all {
		if src.Name == name {
			return id, nil
		}
	}
	var reply fib.FibSourceAddReply
	err = s.call(ctx, &fib.FibSourceAdd{Src: fib.FibSource{Name: name, Priority: sourcePriority}}, &reply)
	if err != nil {
		return 0, fmt.Errorf("FIB source %q: %w", name, err)
	}
	return reply.ID, nil
}
