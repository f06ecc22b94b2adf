package minivpp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"rlr/minivpp/plane"
)

// The "show" commands. The tables look as VPP's do where people and scripts read them; what VPP shows of its own graph and
// data structures, and minivpp does not have, is left out.

func (s *Server) showVersionCommand(_ context.Context, out *strings.Builder, args []string) error {
	verbose := len(args) == 1 && strings.HasPrefix("verbose", args[0])
	if !verbose {
		if err := noArguments(args); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %s built with %s for %s/%s: the embedded dataplane of rlr, not VPP\n",
			program, s.cfg.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return nil
	}
	for _, row := range [][2]string{
		{"Version", s.cfg.Version},
		{"Program", program + ": the embedded dataplane of rlr, not VPP"},
		{"Compiler", runtime.Version()},
		{"Current PID", strconv.Itoa(os.Getpid())},
	} {
		fmt.Fprintf(out, "%-25s %s\n", row[0]+":", row[1])
	}
	return nil
}

func (s *Server) showClock(_ context.Context, out *strings.Builder, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	now := time.Now()
	fmt.Fprintf(out, "Time now %.6f, %s\n", now.Sub(s.boot).Seconds(), now.UTC().Format("Mon, 2 Jan 2006 15:04:05 MST"))
	return nil
}

// pick returns the interfaces with the given names, or all.
func (s *Server) pick(names []string) ([]plane.Interface, error) {
	all := s.Interfaces()
	if len(names) == 0 {
		return all, nil
	}
	var some []plane.Interface
	for n, name := range names {
		i := slices.IndexFunc(all, func(i plane.Interface) bool { return i.Name == name })
		if i < 0 {
			return nil, unknownInput(strings.Join(names[n:], " "))
		}
		some = append(some, all[i])
	}
	return some, nil
}

func (s *Server) showInterface(_ context.Context, out *strings.Builder, args []string) error {
	addresses := len(args) > 0 && len(args[0]) >= 2 && strings.HasPrefix("address", args[0])
	if addresses {
		args = args[1:]
	}
	ifaces, err := s.pick(args)
	if err != nil {
		return err
	}
	if addresses {
		for _, i := range ifaces {
			s.interfaceAddresses(out, i)
		}
		return nil
	}
	fmt.Fprintln(out, center("Name", 32)+center("Idx", 5)+center("State", 10)+center("MTU (L3/IP4/IP6/MPLS)", 21)+center("Counter", 16)+center("Count", 16))
	for _, i := range ifaces {
		state := "down"
		if i.AdminUp {
			state = "up"
		}
		mtu := fmt.Sprintf("%d/%d/%d/%d", i.MTU.L3, i.MTU.IP4, i.MTU.IP6, i.MTU.MPLS)
		line := fmt.Sprintf("%-32s", i.Name) + center(strconv.Itoa(int(i.Index)), 5) + center(state, 10) + center(mtu, 21)
		for _, c := range shownCounters(i.Counters) {
			fmt.Fprintf(out, "%-68s%-16s%16d\n", line, c.name, c.value)
			line = ""
		}
		if line != "" {
			fmt.Fprintln(out, line)
		}
	}
	return nil
}

// center pads s to width as VPP's %= does: an odd space goes to the left.
func center(s string, width int) string {
	pad := max(width-len(s), 0)
	return strings.Repeat(" ", (pad+1)/2) + s + strings.Repeat(" ", pad/2)
}

type shownCounter struct {
	name  string
	value uint64
}

// shownCounters are those that are not 0, in VPP's order.
func shownCounters(c plane.Counters) []shownCounter {
	all := []shownCounter{
		{"rx packets", c.RxPackets},
		{"rx bytes", c.RxBytes},
		{"tx packets", c.TxPackets},
		{"tx bytes", c.TxBytes},
		{"drops", c.Drops},
		{"punt", c.Punts},
		{"ip4", c.IP4},
		{"ip6", c.IP6},
		{"rx-no-buf", c.RxNoBuf},
		{"rx-miss", c.RxMiss},
		{"rx-error", c.RxError},
		{"tx-error", c.TxError},
	}
	return slices.DeleteFunc(all, func(c shownCounter) bool { return c.value == 0 })
}

func (s *Server) interfaceAddresses(out *strings.Builder, i plane.Interface) {
	state := "dn"
	if i.AdminUp {
		state = "up"
	}
	fmt.Fprintf(out, "%s (%s):\n", i.Name, state)
	if lender, err := s.Interface(i.Unnumbered); err == nil && i.Unnumbered != plane.NoInterface {
		fmt.Fprintf(out, "  unnumbered, use %s\n", lender.Name)
		i.Addresses = lender.Addresses
	}
	for _, pfx := range i.Addresses {
		table := i.Table4
		if pfx.Addr().Is6() {
			table = i.Table6
		}
		fmt.Fprintf(out, "  L3 %s", pfx)
		if table != 0 {
			fmt.Fprintf(out, " ip%s table-id %d", family(pfx.Addr()), table)
		}
		out.WriteByte('\n')
	}
}

func family(a netip.Addr) string {
	if a.Is6() {
		return "6"
	}
	return "4"
}

func (s *Server) showHardware(_ context.Context, out *strings.Builder, args []string) error {
	brief := len(args) > 0 && len(args[0]) >= 2 && strings.HasPrefix("brief", args[0])
	if brief {
		args = args[1:]
	}
	ifaces, err := s.pick(args)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, center("Name", 32)+center("Idx", 6)+center("Link", 8)+"Hardware")
	for _, i := range ifaces {
		link := "down"
		if i.LinkUp {
			link = "up"
		}
		fmt.Fprintf(out, "%-32s%s%s%s\n  Link speed: unknown\n", i.Name, center(strconv.Itoa(int(i.Index)), 6), center(link, 8), i.Name)
		if brief {
			continue
		}
		switch i.Kind {
		case plane.KindLocal:
			fmt.Fprintln(out, "  local")
		default:
			fmt.Fprintf(out, "  Ethernet address %s\n", mac(i.MAC))
		}
		if i.Memif != nil {
			fmt.Fprintln(out, "  MEMIF interface")
		}
	}
	return nil
}

func mac(m [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func (s *Server) showMemif(_ context.Context, out *strings.Builder, args []string) error {
	ifaces, err := s.pick(args)
	if err != nil {
		return err
	}
	sockets := s.MemifSockets()
	fmt.Fprintf(out, "sockets\n  %-3s %-11s %s\n", "id", "listener", "filename")
	for _, id := range slices.Sorted(maps.Keys(sockets)) {
		masters := 0
		for _, i := range s.Interfaces() {
			if i.Memif != nil && i.Memif.SocketID == id && i.Memif.Role == plane.MemifMaster {
				masters++
			}
		}
		listener := "no"
		if masters > 0 {
			listener = fmt.Sprintf("yes (%d)", masters)
		}
		fmt.Fprintf(out, "  %-3d %-11s %s\n", id, listener, sockets[id])
	}
	out.WriteByte('\n')
	for _, i := range ifaces {
		m := i.Memif
		if m == nil {
			continue
		}
		mode := "ethernet"
		if m.Mode == plane.MemifIP {
			mode = "ip"
		}
		var words []string
		for _, w := range []struct {
			on   bool
			word string
		}{{i.AdminUp, "admin-up"}, {m.Role == plane.MemifSlave, "slave"}, {i.LinkUp, "connected"}} {
			if w.on {
				words = append(words, w.word)
			}
		}
		fmt.Fprintf(out, "interface %s\n  socket-id %d id %d mode %s\n  flags %s\n", i.Name, m.SocketID, m.ID, mode, strings.Join(words, " "))
		fmt.Fprintf(out, "  ring-size %d buffer-size %d queues %d\n", m.RingSize, m.BufferSize, m.Queues)
	}
	return nil
}

// showPlugins lists the parts that are plugins in VPP and built in here.
func (s *Server) showPlugins(_ context.Context, out *strings.Builder, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	fmt.Fprintf(out, " There are no plugins; what VPP has as a plugin and %s has built in:\n\n     %-40s %-32s%s\n", program, "Plugin", "Version", "Description")
	for i, p := range [][2]string{{"memif", "Packet Memory Interface (memif)"}, {"ping", "Ping (ping)"}} {
		fmt.Fprintf(out, "%3d. %-40s %-32s%s\n", i+1, p[0], s.cfg.Version, p[1])
	}
	return nil
}

func (s *Server) showErrors(_ context.Context, out *strings.Builder, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	counts := s.Errors()
	fmt.Fprintf(out, "%10s  %s\n", "Count", "Reason")
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		if counts[reason] > 0 {
			fmt.Fprintf(out, "%10d  %s\n", counts[reason], reason)
		}
	}
	return nil
}

func (s *Server) showSources(_ context.Context, out *strings.Builder, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	for _, src := range s.Sources() {
		fmt.Fprintf(out, "[%d] %s prio:%d\n", src.ID, src.Name, src.Priority)
	}
	return nil
}

func (s *Server) showTables(out *strings.Builder, ip6 bool, args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	for _, t := range s.Tables() {
		if t.IP6 == ip6 {
			fmt.Fprintf(out, "table_id:%d %s\n", t.ID, tableName(t))
		}
	}
	return nil
}

// showNeighbors shows ARP and ND entries for "ip", as VPP does, and ND entries alone for "ip6".
func (s *Server) showNeighbors(out *strings.Builder, ip6 bool, args []string) error {
	idx := plane.NoInterface
	switch len(args) {
	case 0:
	case 1:
		ifaces, err := s.pick(args)
		if err != nil {
			return err
		}
		idx = ifaces[0].Index
	default:
		return unknownInput(strings.Join(args[1:], " "))
	}
	list := s.Neighbors(idx, true)
	if !ip6 {
		list = append(s.Neighbors(idx, false), list...)
	}
	if len(list) == 0 {
		return nil
	}
	names := s.names()
	fmt.Fprintln(out, center("Age", 12)+center("IP", 40)+center("Flags", 6)+center("Ethernet", 20)+center("Interface", 24))
	for _, n := range list {
		flags := "D"
		if n.Static {
			flags = "S"
		}
		if n.NoFIB {
			flags += "N"
		}
		fmt.Fprintf(out, "%12.4f%s%s%s%s\n", n.Age.Seconds(), center(n.Addr.String(), 40), center(flags, 6), center(mac(n.MAC), 20), names[n.Interface])
	}
	return nil
}

// names maps indexes to names.
func (s *Server) names() map[uint32]string {
	names := map[uint32]string{}
	for _, i := range s.Interfaces() {
		names[i.Index] = i.Name
	}
	return names
}
