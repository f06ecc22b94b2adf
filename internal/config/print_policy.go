package config

import (
	"net/netip"
	"strconv"
)

func (s Sets) block() *block {
	b := newBlock()
	prefixes, as := newBlock(), newBlock()
	for _, set := range s.Prefixes {
		prefixes.list(set.Name, texts(set.Members, PrefixRange.String))
	}
	for _, set := range s.AS {
		as.list(set.Name, texts(set.Members, func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }))
	}
	words := func(sets []WordSet) *block {
		b := newBlock()
		for _, set := range sets {
			b.list(set.Name, set.Members)
		}
		return b
	}
	b.sub("prefixes", prefixes).sub("as", as)
	return b.sub("communities", words(s.Communities)).sub("large-communities", words(s.LargeCommunities))
}

// list is words, with an empty list for none.
func (b *block) list(key string, words []string) *block {
	if len(words) > 0 {
		return b.words(key, words)
	}
	return b.put(key, emptyList())
}

func (r Rule) block() *block {
	b := newBlock().text("name", r.Name)
	b.sub("match", r.Match.block())
	b.sub("set", r.Set.block())
	return b.word("action", string(r.Action), string(ActionContinue))
}

func (m Match) block() *block {
	b := newBlock()
	b.words("prefix", m.Prefix)
	b.words("not-prefix", m.NotPrefix)
	b.words("family", texts(m.Family, func(f Family) string { return string(f) }))
	path := newBlock().flow()
	path.words("contains", m.ASContains)
	path.words("last", m.ASLast)
	path.words("neighbor", m.ASNeighbor)
	if m.ASLength != nil {
		path.text("length", m.ASLength.String())
	}
	b.sub("as-path", path)
	b.words("community", m.Community)
	b.words("not-community", m.NotCommunity)
	b.words("large-community", m.LargeCommunity)
	b.words("origin", m.Origin)
	b.words("next-hop", texts(m.NextHop, netip.Addr.String))
	b.words("source", m.Source)
	return b.text("roa", m.ROA)
}

func (c Change) block() *block {
	b := newBlock()
	if c.LocalPref != nil {
		b.number("local-pref", uint64(*c.LocalPref), 1<<32)
	}
	b.text("med", c.MED)
	b.text("origin", c.Origin)
	b.number("prepend", uint64(c.Prepend), 0)
	b.text("next-hop", c.NextHop)
	return b.sub("communities", c.Communities.block()).sub("large-communities", c.LargeCommunities.block())
}

func (e CommunityEdit) block() *block {
	b := newBlock().flow()
	if e.Replace != nil {
		b.list("replace", e.Replace)
	}
	return b.words("remove", e.Remove).words("add", e.Add)
}

// policy writes import or export.
func (b *block) policy(key string, all Policy, of map[Family]Policy) *block {
	if of == nil {
		return b.text(key, string(all))
	}
	m := newBlock().flow()
	for _, f := range []Family{IPv4, IPv6} {
		m.text(string(f), string(of[f]))
	}
	return b.sub(key, m)
}

func (l DN42Link) block() *block {
	b := newBlock().flow()
	b.number("latency", uint64(l.Latency), 0)
	b.number("bandwidth", uint64(l.Bandwidth), 0)
	return b.number("crypto", uint64(l.Crypto), 0)
}
