package wg

// Where the peer is. A name is resolved at the start, again and again while handshakes fail, and from time to time
// while they do not. WireGuard itself follows a peer that moves (its packets come from elsewhere); this is for a peer
// that cannot tell, because it has come back under another address of its name.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"
)

// Resolver looks up host names; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	resolveTime = 3 * time.Second // for one look-up
	refreshTime = 2 * time.Minute // between look-ups while all is well
	retryLeast  = time.Second     // between look-ups that fail
	retryMost   = time.Minute
	// failingAfter is how many handshake initiations in a row may stay without an answer: they are 5 s apart.
	failingAfter = 2
)

// target is a parsed Peer.Endpoint.
type target struct {
	host string
	addr netip.Addr // valid when host is an address
	port uint16
}

// parseTarget reads "host:port"; "" is the zero target, a peer that is waited for.
func parseTarget(s string) (target, error) {
	if s == "" {
		return target{}, nil
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return target{}, fmt.Errorf("endpoint %q: must be host:port", s)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return target{}, fmt.Errorf("endpoint %q: port must be 1 to 65535", s)
	}
	if host == "" {
		return target{}, fmt.Errorf("endpoint %q: no host", s)
	}
	t := target{host: host, port: uint16(port)}
	if addr, err := netip.ParseAddr(host); err == nil {
		t.addr = addr.Unmap()
	}
	return t, nil
}

func (t target) isZero() bool { return t.host == "" }
func (t target) isName() bool { return t.host != "" && !t.addr.IsValid() }

// resolve gives the addresses of t that a socket bound to local can reach.
func (t target) resolve(ctx context.Context, r Resolver, local netip.Addr) ([]netip.AddrPort, error) {
	addrs := []netip.Addr{t.addr}
	if t.isName() {
		ctx, cancel := context.WithTimeout(ctx, resolveTime)
		defer cancel()
		var err error
		if addrs, err = r.LookupNetIP(ctx, "ip", t.host); err != nil {
			return nil, fmt.Errorf("resolve endpoint %s: %w", t.host, err)
		}
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		a = a.Unmap()
		dual := !local.IsValid() || local.Is6() && local.IsUnspecified()
		if !a.IsValid() || !dual && a.Is4() != local.Is4() {
			continue
		}
		if ap := netip.AddrPortFrom(a, t.port); !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("resolve endpoint %s: %w", t.host, errors.New("no address of the listening socket's family"))
	}
	return out, nil
}

// tracker decides to which of several addresses a peer's packets go.
type tracker struct {
	applied netip.AddrPort // what we set last
	good    netip.AddrPort // where the last handshake was
}

// next says whether, and to what, the endpoint is to change. current is where packets go now: what was applied, or
// where the peer has moved since; shook says that there has been a handshake at all.
func (t *tracker) next(resolved []netip.AddrPort, current netip.AddrPort, shook, failing bool) (netip.AddrPort, bool) {
	if len(resolved) == 0 {
		return netip.AddrPort{}, false
	}
	if !failing && current.IsValid() {
		if shook {
			t.good = current
		}
		// It works. Only if the name does not mean this address any more is the peer about to be elsewhere.
		if current != t.applied || slices.Contains(resolved, current) {
			return netip.AddrPort{}, false
		}
		t.applied = resolved[0]
		return t.applied, true
	}
	candidates := slices.Clone(resolved)
	if t.good.IsValid() && !slices.Contains(candidates, t.good) {
		candidates = append(candidates, t.good)
	}
	t.applied = candidates[(slices.Index(candidates, current)+1)%len(candidates)]
	return t.applied, t.applied != current
}

// follower keeps one peer's endpoint right. One goroutine uses it.
type follower struct {
	target   target
	resolved []netip.AddrPort
	lookedUp time.Time
	pause    time.Duration // until the next look-up, when things fail
	seen     time.Time     // the last handshake that we know of
	tracker  tracker
}

// follow runs until ctx ends. l.poke wakes it when handshakes fail or the peer has been changed.
func (l *Link) follow(ctx context.Context, f *follower) {
	timer := time.NewTimer(refreshTime)
	defer timer.Stop()
	if f.resolved == nil {
		timer.Reset(retryLeast)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.poke:
		case <-timer.C:
		}
		timer.Reset(l.point(ctx, f))
	}
}

// point looks once and says when to look again, unless something happens before.
func (l *Link) point(ctx context.Context, f *follower) time.Duration {
	l.mu.Lock()
	want := l.target
	l.mu.Unlock()
	if want != f.target {
		*f = follower{target: want, seen: f.seen}
	}
	if want.isZero() {
		return refreshTime
	}
	state := l.peerState()
	if state.handshake.After(f.seen) {
		f.seen = state.handshake
		l.bind.unanswered.Store(0)
	}
	failing := l.bind.unanswered.Load() >= failingAfter
	if !failing && f.resolved != nil {
		f.pause = 0
	}
	if f.resolved == nil || time.Since(f.lookedUp) >= f.pause {
		f.lookedUp = time.Now()
		f.pause = min(max(2*f.pause, retryLeast), retryMost)
		resolved, err := want.resolve(ctx, l.resolver, l.cfg.Listen.Addr())
		if err != nil {
			l.fail(err)
			if f.resolved == nil {
				return f.pause
			}
		} else {
			f.resolved = resolved
		}
	}
	if to, change := f.tracker.next(f.resolved, state.endpoint, !state.handshake.IsZero(), failing); change {
		l.log.WithFields(logrus.Fields{"endpoint": to, "was": state.endpoint}).Info("wireguard endpoint")
		l.setEndpoint(to)
	}
	return refreshTime
}
