package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
)

// relayPlan is etc/relay.json: what the relay of a lab that is up inherits. File 3 is the lab's lock, then come two sockets
// per tunnel in this order, bound already, so that nobody can take their ports in between.
type relayPlan struct {
	Tunnels []relayTunnel `json:"tunnels"`
}

type relayTunnel struct {
	Name    string            `json:"name"`
	Targets [2]netip.AddrPort `json:"targets"`
}

// firstInherited is the number of the first file in exec.Cmd.ExtraFiles.
const firstInherited = 3

func relayPlanPath(dir string) string { return filepath.Join(dir, "etc", "relay.json") }

// spawnRelay starts `rlr lab relay DIR`.
func (p *play) spawnRelay(tunnels []tunnel) error {
	files := []*os.File{p.place.lock}
	defer func() {
		for _, f := range files[1:] {
			f.Close()
		}
	}()
	var plan relayPlan
	for _, t := range tunnels {
		plan.Tunnels = append(plan.Tunnels, relayTunnel{Name: t.name, Targets: t.relay.targets})
		for _, c := range t.relay.sides {
			f, err := c.File()
			if err != nil {
				return fmt.Errorf("relay %s: %w", t.name, err)
			}
			files = append(files, f)
		}
		t.relay.close() // the copies live on
	}
	b, err := json.Marshal(plan)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if err := os.WriteFile(relayPlanPath(p.place.dir), b, 0o600); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	c, err := spawn(spawnOptions{
		name: relayName, binary: p.binary, args: []string{"lab", "relay", p.place.dir}, log: p.place.log(relayName), files: files,
	})
	if err != nil {
		return err
	}
	p.procs = append(p.procs, c)
	return p.writeState(modeUp)
}

// Relay carries the tunnels of a lab that is up, until ctx ends. Up starts it with the sockets and the lock of the lab.
func Relay(ctx context.Context, dir string) error {
	b, err := os.ReadFile(relayPlanPath(dir))
	if err != nil {
		return fmt.Errorf("relay: only rlr lab up starts this: %w", err)
	}
	var plan relayPlan
	if err := json.Unmarshal(b, &plan); err != nil {
		return fmt.Errorf("relay: %s: %w", relayPlanPath(dir), err)
	}
	lock := os.NewFile(firstInherited, "lock")
	defer runtime.KeepAlive(lock) // collected, it would be closed, and the lab would seem to be gone
	rs := &relays{}
	for i, t := range plan.Tunnels {
		var sides [2]*net.UDPConn
		for k := range sides {
			if sides[k], err = inheritedUDP(firstInherited + 1 + 2*i + k); err != nil {
				return fmt.Errorf("relay %s: only rlr lab up starts this: %w", t.Name, err)
			}
		}
		rs.all = append(rs.all, newRelay(t.Name, sides, t.Targets))
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "relay.sock"))
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	rs.run(ctx, ln)
	return nil
}

func inheritedUDP(fd int) (*net.UDPConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	if f == nil {
		return nil, fmt.Errorf("file %d is not open", fd)
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a UDP socket")
	}
	return u, nil
}
