package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A relay carries the datagrams of one tunnel between its two ends. It has a socket towards each, so that each end sees its
// peer at a fixed address. Cut, it goes on reading and drops what it reads: both ends notice nothing but silence.
type relay struct {
	name    string
	sides   [2]*net.UDPConn
	targets [2]netip.AddrPort // where each end listens
	cut     atomic.Bool
	dropped atomic.Uint64
	carried atomic.Uint64
}

func newRelay(name string, sides [2]*net.UDPConn, targets [2]netip.AddrPort) *relay {
	return &relay{name: name, sides: sides, targets: targets}
}

// endpoint returns the address that the end with this index sends to.
func (r *relay) endpoint(side int) netip.AddrPort {
	return r.sides[side].LocalAddr().(*net.UDPAddr).AddrPort()
}

// run carries until ctx ends, then closes the sockets.
func (r *relay) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.carry(0, 1) })
	wg.Go(func() { r.carry(1, 0) })
	<-ctx.Done()
	r.close()
	wg.Wait()
}

func (r *relay) close() {
	for _, c := range r.sides {
		c.Close()
	}
}

// carry moves datagrams that arrive from one end out of the other side's socket.
func (r *relay) carry(from, to int) {
	buf := make([]byte, 65536)
	for {
		n, _, err := r.sides[from].ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier datagram: the other end is not there yet
		}
		if r.cut.Load() {
			r.dropped.Add(1)
			continue
		}
		if _, err := r.sides[to].WriteToUDPAddrPort(buf[:n], r.targets[to]); errors.Is(err, net.ErrClosed) {
			return
		}
		r.carried.Add(1)
	}
}

// relays are all tunnels of a lab and the socket that commands them.
type relays struct {
	all []*relay
}

func (rs *relays) find(name string) *relay {
	for _, r := range rs.all {
		if r.name == name {
			return r
		}
	}
	return nil
}

// run carries all tunnels and takes commands at the socket until ctx ends.
func (rs *relays) run(ctx context.Context, ln net.Listener) {
	var wg sync.WaitGroup
	for _, r := range rs.all {
		wg.Go(func() { r.run(ctx) })
	}
	wg.Go(func() { rs.serve(ctx, ln) })
	wg.Wait()
}

// serve answers one command a connection: "cut LINK" or "heal LINK", with "ok" or what is wrong.
func (rs *relays) serve(ctx context.Context, ln net.Listener) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		rs.answer(conn)
	}
}

func (rs *relays) answer(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return
	}
	line, err := bufio.NewReaderSize(conn, 256).ReadSlice('\n')
	if err != nil {
		return // too long, or too slow
	}
	reply := "ok"
	if err := rs.command(strings.Fields(string(line))); err != nil {
		reply = err.Error()
	}
	fmt.Fprintln(conn, reply) // a caller that is gone misses nothing
}

func (rs *relays) command(words []string) error {
	if len(words) != 2 || words[0] != "cut" && words[0] != "heal" {
		return errors.New("the relay understands cut LINK and heal LINK")
	}
	r := rs.find(words[1])
	if r == nil {
		var names []string
		for _, r := range rs.all {
			names = append(names, r.name)
		}
		slices.Sort(names)
		return fmt.Errorf("no link %q: there is %s", words[1], strings.Join(names, ", "))
	}
	r.cut.Store(words[0] == "cut")
	return nil
}

// commandRelay sends one command to the relay that listens at the socket.
func commandRelay(ctx context.Context, socket, verb, link string) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("%s %s: the lab's relay does not answer: %w", verb, link, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return fmt.Errorf("%s %s: %w", verb, link, err)
	}
	if _, err := fmt.Fprintf(conn, "%s %s\n", verb, link); err != nil {
		return fmt.Errorf("%s %s: %w", verb, link, err)
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, link, err)
	}
	if reply = strings.TrimSpace(reply); reply != "ok" {
		return errors.New(reply)
	}
	return nil
}
