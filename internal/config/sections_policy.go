package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// This file decodes `sets` and `policies`.

func (d *decoder) sets(v value) Sets {
	var s Sets
	named := func(v value, key string, visit func(name string, v value)) {
		d.entries(v, key+" must be a mapping of names to lists", func(name string, at mark, v value) {
			d.checkName(at, "a set", name, maxName)
			if slices.Contains(wellKnownCommunities, name) {
				d.errorAt(at, "%s is the name of a community; choose another for the set", name)
			}
			visit(name, v)
		})
	}
	d.mapping(v, setsSection, func(key string, v value) {
		switch key {
		case "prefixes":
			named(v, "sets.prefixes", func(name string, v value) {
				set := PrefixSet{Name: name}
				d.wordOrWords(v, "a set of prefixes must be a list", func(v value, w string) {
					r, err := parseRange(w)
					if err != nil {
						d.errorf(v, "%v", err)
					}
					set.Members = append(set.Members, r)
				})
				s.Prefixes = append(s.Prefixes, set)
			})
		case "as":
			named(v, "sets.as", func(name string, v value) {
				set := ASSet{Name: name}
				d.wordOrWords(v, "a set of AS numbers must be a list", func(v value, w string) {
					set.Members = append(set.Members, d.asWord(v, w))
				})
				s.AS = append(s.AS, set)
			})
		case "communities":
			named(v, "sets.communities", func(name string, v value) {
				s.Communities = append(s.Communities, WordSet{name, d.communityWords(v, "a set of communities must be a list", parseCommunity, true)})
			})
		case "large-communities":
			named(v, "sets.large-communities", func(name string, v value) {
				s.LargeCommunities = append(s.LargeCommunities, WordSet{name, d.communityWords(v, "a set of large communities must be a list", parseLarge, true)})
			})
		}
	})
	return s
}

// wordOrWords is words, with a scalar for a list of one.
func (d *decoder) wordOrWords(v value, what string, visit func(v value, word string)) {
	if v.node.Kind == scalarNode && !v.isNull() {
		if r, err := expand(v.node.Value, d.opt.env); err == nil && !r.whole {
			if s, ok := d.text(v, what); ok {
				visit(v, s)
			}
			return
		}
	}
	d.words(v, what, func(_ int, v value, s string) {
		if s != "" {
			visit(v, s)
		}
	})
}

func (d *decoder) asWord(v value, w string) uint32 {
	n, err := strconv.ParseUint(w, 10, 32)
	if err != nil || n == 0 || n == math.MaxUint32 { // RFC 7607, RFC 7300
		d.errorf(v, "%q is no AS number; they are from 1 to 4294967294", shorten(w))
		return 0
	}
	return uint32(n)
}

func (d *decoder) communityWords(v value, what string, parse func(string, bool) (string, error), pattern bool) []string {
	words := []string{}
	d.wordOrWords(v, what, func(v value, w string) {
		c, err := parse(w, pattern)
		if err != nil {
			d.errorf(v, "%v", err)
		}
		words = append(words, c)
	})
	return words
}

func (d *decoder) policies(v value) (all []RulePolicy) {
	d.entries(v, "policies must be a mapping of names to lists of rules", func(name string, at mark, v value) {
		d.checkName(at, "a policy", name, maxName)
		if slices.Contains(builtinPolicies, name) {
			d.errorAt(at, "the policy %s is built in; choose another name", name)
		}
		p := RulePolicy{Name: name}
		d.list(v, "a policy must be a list of rules", func(_ int, v value) {
			p.Rules = append(p.Rules, d.rule(v))
		})
		if len(p.Rules) == 0 && (v.isNull() || v.node.Kind == sequenceNode) {
			d.errorf(v, "policy %s has no rule, and so would reject everything; write none where it is used, or give it rules", shorten(name))
		}
		all = append(all, p)
	})
	return all
}

func (d *decoder) rule(v value) Rule {
	r := Rule{Action: ActionContinue}
	before := len(d.errs)
	d.mapping(v, ruleSection, func(key string, v value) {
		switch key {
		case "name":
			r.Name, _ = d.text(v, "the name of a rule must be a text")
		case "match":
			r.Match = d.match(v)
		case "set":
			r.Set = d.change(v)
		case "action":
			r.Action = RuleAction(d.choice(v, "action", string(ActionAccept), string(ActionReject), string(ActionContinue)))
		}
	})
	switch {
	case len(d.errs) > before:
	case r.Action == ActionContinue && r.Set.empty():
		d.errorf(v, "the rule does nothing; give it action: accept, action: reject or a set: {…}")
	case r.Action == ActionReject && !r.Set.empty():
		d.errorPath(v.path+"/set", "a route that is rejected is not changed; remove set, or write another action")
	}
	return r
}

func (d *decoder) match(v value) (m Match) {
	prefixes := func(v value, key string) []string {
		return d.setWords(v, key, "a prefix or the name of a set of prefixes", func(w string) (string, bool, error) {
			if !strings.Contains(w, "/") {
				return w, true, nil
			}
			r, err := parseRange(w)
			return r.String(), false, err
		})
	}
	communities := func(v value, key, what string, parse func(string, bool) (string, error)) []string {
		return d.setWords(v, key, what, func(w string) (string, bool, error) {
			if !strings.Contains(w, ":") && !slices.Contains(wellKnownCommunities, w) {
				return w, true, nil
			}
			c, err := parse(w, true)
			return c, false, err
		})
	}
	const community, large = "a community or the name of a set of communities", "a large community or the name of a set of them"
	d.mapping(v, matchSection, func(key string, v value) {
		switch key {
		case "prefix":
			m.Prefix = prefixes(v, key)
		case "not-prefix":
			m.NotPrefix = prefixes(v, key)
			if d.has(strings.TrimSuffix(v.path, "not-prefix") + "prefix") {
				d.errorf(v, "prefix and not-prefix do not go into one rule; put one of them into a rule of its own")
			}
		case "family":
			var n Neighbor
			if v.node.Kind == scalarNode {
				m.Family = []Family{Family(d.choice(v, key, string(IPv4), string(IPv6)))}
				return
			}
			d.families(v, &n)
			m.Family = n.Families
		case "as-path":
			d.asPath(v, &m)
		case "community":
			m.Community = communities(v, key, community, parseCommunity)
		case "not-community":
			m.NotCommunity = communities(v, key, community, parseCommunity)
			if d.has(strings.TrimSuffix(v.path, "not-community") + "community") {
				d.errorf(v, "community and not-community do not go into one rule; put one of them into a rule of its own")
			}
		case "large-community":
			m.LargeCommunity = communities(v, key, large, parseLarge)
		case "origin":
			m.Origin = d.choices(v, key, "igp", "egp", "incomplete")
		case "next-hop":
			d.wordOrWords(v, "next-hop must be an address, or a list of them", func(v value, _ string) {
				if a, ok := d.address(v, key); ok {
					m.NextHop = append(m.NextHop, a)
				}
			})
			if m.NextHop == nil {
				d.errorf(v, "next-hop has no address; give it one, or remove it")
			}
		case "source":
			m.Source = d.choices(v, key, "own", "originate", "connected", "static", "learned", "internal", "external")
		case "roa":
			m.ROA = d.choice(v, key, "valid", "invalid", "unknown")
		}
	})
	return m
}

// choices decodes one or several of a few words.
func (d *decoder) choices(v value, key string, words ...string) []string {
	out := []string{}
	d.wordOrWords(v, key+" must be "+either(words)+", or a list of them", func(v value, w string) {
		switch {
		case !slices.Contains(words, w):
			d.errorf(v, "%s must be %s, not %q", key, either(words), shorten(w))
		case !slices.Contains(out, w):
			out = append(out, w)
		}
	})
	if len(out) == 0 && (v.isNull() || v.node.Kind == sequenceNode && len(v.node.Content) == 0) {
		d.errorf(v, "%s is empty; give it one of %s, or remove it", key, either(words))
	}
	return out
}

// setWord is the place of a name of a set, for the check that there is one.
type setWord struct {
	value value
	kind  string // a key of setsSection
	name  string
}

// setWords decodes names of sets and what is in such sets.
func (d *decoder) setWords(v value, key, what string, parse func(string) (word string, name bool, err error)) []string {
	out := []string{}
	d.wordOrWords(v, key+" must be "+what+", or a list of them", func(v value, w string) {
		word, name, err := parse(w)
		switch {
		case err != nil:
			d.errorf(v, "%v", err)
		case name:
			d.setNames = append(d.setNames, setWord{v, kindOfSet(key), word})
		}
		out = append(out, word)
	})
	if len(out) == 0 && (v.isNull() || v.node.Kind == sequenceNode && len(v.node.Content) == 0) {
		d.errorf(v, "%s is empty; give it %s, or remove it", key, what)
	}
	return out
}

func kindOfSet(key string) string {
	switch key {
	case "prefix", "not-prefix":
		return "prefixes"
	case "community", "not-community":
		return "communities"
	case "large-community":
		return "large-communities"
	}
	return "as"
}

func (d *decoder) asPath(v value, m *Match) {
	numbers := func(v value, key string) []string {
		return d.setWords(v, key, "an AS number or the name of a set of them", func(w string) (string, bool, error) {
			if !isDigits(w) {
				return w, true, nil
			}
			n, err := strconv.ParseUint(w, 10, 32)
			if err != nil || n == 0 || n == math.MaxUint32 {
				return "", false, fmt.Errorf("%q is no AS number; they are from 1 to 4294967294", shorten(w))
			}
			return strconv.FormatUint(n, 10), false, nil
		})
	}
	d.mapping(v, asPathSection, func(key string, v value) {
		switch key {
		case "contains":
			m.ASContains = numbers(v, key)
		case "last":
			m.ASLast = numbers(v, key)
		case "neighbor":
			m.ASNeighbor = numbers(v, key)
		case "length":
			s, ok := d.text(v, "length must be a range of numbers")
			if !ok {
				return
			}
			span, err := parseSpan(s)
			if err != nil {
				d.errorf(v, "length: %v", err)
				return
			}
			m.ASLength = &span
		}
	})
}

func (d *decoder) change(v value) (c Change) {
	d.mapping(v, setSection, func(key string, v value) {
		switch key {
		case "local-pref":
			if n, ok := d.number(v, key, 0, math.MaxUint32); ok {
				pref := uint32(n)
				c.LocalPref = &pref
			}
		case "med":
			c.MED = d.med(v)
		case "origin":
			c.Origin = d.choice(v, key, "igp", "egp", "incomplete")
		case "prepend":
			n, _ := d.number(v, key, 1, 32)
			c.Prepend = uint8(n)
		case "next-hop":
			if s, ok := d.text(v, "next-hop must be self or an address"); ok && s == "self" {
				c.NextHop = s
			} else if a, ok := d.address(v, key); ok {
				c.NextHop = a.String()
			}
		case "communities":
			c.Communities = d.edit(v, parseCommunity)
		case "large-communities":
			c.LargeCommunities = d.edit(v, parseLarge)
		}
	})
	return c
}

// med decodes a number, or one with a sign, which is relative.
func (d *decoder) med(v value) string {
	const what = "med must be a number from 0 to 4294967295, or one to add such as +10 or -10"
	s, ok := d.text(v, what)
	if !ok {
		return ""
	}
	sign, digits := "", s
	if strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") {
		sign, digits = s[:1], s[1:]
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || sign != "" && n == 0 {
		d.errorf(v, "%s, not %q", what, shorten(s))
		return ""
	}
	return sign + strconv.FormatUint(n, 10)
}

func (d *decoder) edit(v value, parse func(string, bool) (string, error)) (e CommunityEdit) {
	d.mapping(v, editSection, func(key string, v value) {
		switch key {
		case "replace":
			e.Replace = d.communityWords(v, "replace must be a list", parse, false)
		case "remove":
			e.Remove = d.communityWords(v, "remove must be a list", parse, true)
		case "add":
			e.Add = d.communityWords(v, "add must be a list", parse, false)
		}
		if key != "replace" && v.node.Kind == sequenceNode && len(v.node.Content) == 0 {
			d.errorf(v, "%s is empty; name a community, or remove it", key)
		}
	})
	return e
}

// dn42Number decodes one of the numbers of DN42's communities.
func (d *decoder) dn42Number(v value, key string, lo, hi uint64, what string) uint16 {
	s, ok := d.text(v, key+" must be a number")
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < lo || n > hi {
		hint := ""
		if key == "country" && err == nil && n < 1000 && n > 0 {
			hint = fmt.Sprintf("; write %d", 1000+n)
		}
		d.errorf(v, "%s must be a number from %d to %d (64511:x), %s, not %s%s", key, lo, hi, what, quote(shorten(s)), hint)
		return 0
	}
	return uint16(n)
}

func (d *decoder) dn42(v value) (g DN42) {
	d.mapping(v, dn42Section, func(key string, v value) {
		switch key {
		case "region":
			g.Region = d.dn42Number(v, key, 41, 57, "of the wiki's table of regions")
		case "country":
			g.Country = d.dn42Number(v, key, 1001, 1999, "1000 and the country's number of ISO 3166-1")
		}
	})
	return g
}

func (d *decoder) dn42Link(v value) (l DN42Link) {
	d.mapping(v, dn42LinkSection, func(key string, v value) {
		switch key {
		case "latency":
			l.Latency = d.dn42Number(v, key, 1, 9, "where 1 is up to 2.7 ms, 2 up to 7.3, 3 up to 20, 4 up to 55, 5 up to 148, 6 up to 403, 7 up to 1097, 8 up to 2981, and 9 more")
		case "bandwidth":
			l.Bandwidth = d.dn42Number(v, key, 21, 25, "where 21 is 0.1 Mb/s and more, 22 1, 23 10, 24 100, and 25 1000")
		case "crypto":
			l.Crypto = d.dn42Number(v, key, 31, 36, "where 31 is none, 32 an unsafe one, 33 without forward secrecy, 34 with it, 35 with WireGuard's pre-shared key too, and 36 safe from quantum computers")
		}
	})
	return l
}
