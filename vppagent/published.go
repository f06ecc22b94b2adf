package vppagent

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	"rlr/fib"
)

// What the latest pass found, for everybody else.

// publish replaces it, and says whether anything is different.
func (a *Agent) publish(p *pass, rev uint64) (changed bool) {
	byName := make(map[string]uint32)
	byIndex := make(map[uint32]string)
	now := make(map[string]link)
	ok := p.other == nil && len(p.aclErrs) == 0
	for i := range p.cfg.Interfaces {
		want := &p.cfg.Interfaces[i]
		st := p.state[want.Name]
		if st == nil || st.err != nil {
			ok = false
		}
		if st == nil || st.index == noInterface {
			continue
		}
		byName[want.Name], byIndex[st.index] = st.index, want.Name
		o := p.w.interfaces[st.index]
		now[want.Name] = link{
			index: o.index, loopback: want.Loopback != nil, admin: o.admin, up: o.link, table: o.table4, addresses: o.addresses,
			linkLocal: o.linkLocal,
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	changed = !maps.EqualFunc(a.links, now, func(x, y link) bool { return x.same(&y) })
	a.byName, a.byIndex, a.links, a.state, a.other, a.aclErrs = byName, byIndex, now, p.state, p.other, p.aclErrs
	a.cameUpLocked()
	if len(a.expected) > 0 && !time.Now().Before(a.expectBy) {
		a.expected, changed = nil, true
	}
	a.settled = 0
	if ok {
		a.settled = rev
	}
	a.progressLocked()
	return changed
}

// linksMoved notes the interfaces' states. It says false, and notes nothing, when that is not all that changed.
func (a *Agent) linksMoved(now map[uint32]*observed) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	ours := 0
	for _, o := range now {
		if _, _, own := a.cfg.ownName(o.tag); own {
			ours++
		}
	}
	if ours != len(a.links) {
		return false
	}
	next := make(map[string]link)
	for name, l := range a.links {
		o := now[l.index]
		if o == nil || o.admin != l.admin {
			return false
		}
		if own, _, _ := a.cfg.ownName(o.tag); own != name {
			return false
		}
		l.up = o.link
		next[name] = l
	}
	a.links = next
	a.cameUpLocked()
	return true
}

// expectLinks is called with each connection. A dataplane that takes the place of another has all links down for a moment.
func (a *Agent) expectLinks(i instance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.instance == (instance{}) || a.instance.same(i) {
		return
	}
	if a.expected == nil {
		a.expected = make(map[string]bool)
	}
	for name, l := range a.links {
		if l.admin && l.up && !l.loopback {
			a.expected[name] = true
		}
	}
	a.expectBy = time.Now().Add(a.opt.LinkWait)
}

// cameUpLocked ends the wait for links that are up: from here on one that is down is down.
func (a *Agent) cameUpLocked() {
	maps.DeleteFunc(a.expected, func(name string, _ bool) bool { return a.links[name].up })
}

// expectsLinks returns how long links are still expected to come up; false when none are.
func (a *Agent) expectsLinks() (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(time.Until(a.expectBy), 0), len(a.expected) > 0
}

// vanished returns the indexes of interfaces that were ours and are not there any more, or are somebody else's.
func (a *Agent) vanished(w *world) map[uint32]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	gone := make(map[uint32]bool)
	for name, index := range a.byName {
		o := w.interfaces[index]
		if o == nil {
			gone[index] = true
			continue
		}
		if own, _, _ := a.cfg.ownName(o.tag); own != name {
			gone[index] = true
		}
	}
	return gone
}

// forget makes names of void indexes unknown, so that no route is written with them.
func (a *Agent) forget(void map[uint32]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.byName, func(_ string, index uint32) bool { return void[index] })
	maps.DeleteFunc(a.byIndex, func(index uint32, _ string) bool { return void[index] })
	maps.DeleteFunc(a.links, func(_ string, l link) bool { return void[l.index] })
}

func (a *Agent) ownIndexes() []uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := append(make([]uint32, 0, len(a.byIndex)+len(a.lanes)), a.lanes...)
	for index := range a.byIndex {
		list = append(list, index)
	}
	return list
}

// InterfaceIndex implements hoststack.Interfaces: the sw_if_index of a configured interface that exists.
func (a *Agent) InterfaceIndex(name string) (swIfIndex uint32, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	swIfIndex, ok = a.byName[name]
	return swIfIndex, ok
}

// InterfaceName implements hoststack.Interfaces.
func (a *Agent) InterfaceName(swIfIndex uint32) (name string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, ok = a.byIndex[swIfIndex]
	return name, ok
}

// Connected returns a route for each address of interfaces that are up, with its subnet, as the dataplane makes them itself.
// Link-local subnets, which are on every interface, are not among them. A loopback is up when it is enabled. Without a
// connection to the dataplane they are those of the latest look.
func (a *Agent) Connected() []fib.Route { return a.connected(false) }

// Reachable returns those of Connected, and those of interfaces that were up when the dataplane ended and are about to come up
// in the new one. Next hops are looked up in them: a route over a link that is down goes nowhere, and goes on by itself when the
// link is up; one that was written without its interface must be written again, as must be 200,000.
func (a *Agent) Reachable() []fib.Route { return a.connected(true) }

func (a *Agent) connected(soon bool) []fib.Route {
	a.mu.Lock()
	defer a.mu.Unlock()
	var routes []fib.Route
	for name, l := range a.links {
		if !l.admin || !l.up && !l.loopback && !(soon && a.expected[name]) {
			continue
		}
		for _, p := range l.addresses {
			routes = append(routes, fib.Route{
				Key: fib.Key{Table: l.table, Prefix: p.Masked()}, Kind: fib.Connected, NextHops: []fib.NextHop{{Interface: name}},
			})
		}
	}
	return routes
}

// Address is an address of an interface.
type Address struct {
	Interface string
	Table     uint32
	Prefix    netip.Prefix // host bits kept
}

// Addresses returns those of all configured interfaces that exist, up or not, without link-local ones.
func (a *Agent) Addresses() []Address {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []Address
	for name, l := range a.links {
		for _, p := range l.addresses {
			list = append(list, Address{Interface: name, Table: l.table, Prefix: p})
		}
	}
	return list
}

// nameOf returns the router's name of an index, or one that no configuration has.
func nameOf(names map[uint32]string, index uint32) string {
	if name, ok := names[index]; ok {
		return name
	}
	return fmt.Sprintf("#%d", index)
}
