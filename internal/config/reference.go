package config

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	scalarNode   = yaml.ScalarNode
	sequenceNode = yaml.SequenceNode
	mappingNode  = yaml.MappingNode
)

// builtinPolicies need no definition.
var builtinPolicies = []string{"all", "none", "dn42"}

// refer reports references to things that do not exist. A later key whose references are right is then reported as not
// available yet.
func (d *decoder) refer(c *Config) {
	for _, l := range d.laters {
		before := len(d.errs)
		if l.key.refers != nil {
			l.key.refers(d, l.value)
		}
		if len(d.errs) == before {
			d.errorAt(l.at, "%s is not available yet; %s", l.key.name, l.key.later)
			d.errs[len(d.errs)-1].NotYet = true
		}
	}
	there := c.interfaceNames()
	refer := func(path, name string) {
		if name == "" {
			return
		}
		if _, ok := d.iface(c, name); !ok {
			d.errorPath(path, "interface %q does not exist; %s", shorten(name), d.exists("interface", name, there))
		}
	}
	for _, i := range c.Interfaces {
		refer(join("interfaces", i.Name, "unnumbered"), i.Unnumbered)
	}
	d.referACLs(c)
	for i, s := range c.Static {
		for j, n := range s.Via {
			refer(join("static", i, "via", j, "interface"), n.Interface)
		}
	}
	for i, name := range c.BGP.Redistribute.Connected.Interfaces {
		refer(join("bgp/redistribute/connected", i), name)
	}
	for i, n := range c.BGP.Neighbors {
		refer(join("bgp/neighbors", i, "interface"), n.Interface)
	}
	d.referGroups(c)
}

// join makes a path of steps: keys and indexes.
func join(steps ...any) string {
	var b strings.Builder
	for i, s := range steps {
		if i > 0 {
			b.WriteByte('/')
		}
		fmt.Fprint(&b, s)
	}
	return b.String()
}

// iface is c.Interface in a time that does not grow with their number.
func (d *decoder) iface(c *Config, name string) (Interface, bool) {
	if d.ifaceIndex == nil {
		d.ifaceIndex = map[string]int{}
		for i := range c.Interfaces {
			d.ifaceIndex[c.Interfaces[i].Name] = i
		}
	}
	i, ok := d.ifaceIndex[name]
	if !ok {
		return Interface{}, false
	}
	return c.Interfaces[i], true
}

func (c *Config) interfaceNames() []string {
	names := make([]string, len(c.Interfaces))
	for i := range c.Interfaces {
		names[i] = c.Interfaces[i].Name
	}
	return names
}

// refersTo makes the reference check of a key whose words, all of them, name entries of the mapping at a path.
func refersTo(path, what string, builtin ...string) func(*decoder, value) {
	return func(d *decoder, v value) {
		there := d.keysAt(path)
		d.wordsBelow(v, func(v value, name string) {
			if slices.Contains(builtin, name) || slices.Contains(there, name) {
				return
			}
			d.errorf(v, "%s %q does not exist; %s", what, shorten(name), d.exists(what, name, there))
		})
	}
}

// vrfReferences checks the interfaces of all VRFs.
func (d *decoder) vrfReferences(v value) {
	check := refersTo("interfaces", "interface")
	d.pairs(v, func(_ string, vrf value) {
		d.pairs(vrf, func(key string, list value) {
			if key == "interfaces" {
				check(d, list)
			}
		})
	})
}

// keysAt returns the keys of the mapping at a path from the root.
func (d *decoder) keysAt(path string) []string {
	if keys, ok := d.keysOf[path]; ok {
		return keys
	}
	at := d.root.node
	for _, step := range strings.Split(path, "/") {
		at = below(at, step)
	}
	var keys []string
	if at != nil && at.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(at.Content); i += 2 {
			keys = append(keys, at.Content[i].Value)
		}
	}
	d.keysOf[path] = keys
	return keys
}

// below returns the value of a mapping's key, nil when there is none.
func below(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		if v := n.Content[i+1]; v.Kind != yaml.AliasNode {
			return v
		}
		return n.Content[i+1].Alias
	}
	return nil
}

// pairs calls visit for the entries of a mapping, and not at all for anything else.
func (d *decoder) pairs(v value, visit func(key string, v value)) {
	if v.node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(v.node.Content) && d.budget > 0; i += 2 {
		visit(v.node.Content[i].Value, d.resolve(v.node.Content[i+1], join(v.path, v.node.Content[i].Value)))
	}
}

// maxReferenceDepth bounds the walk of wordsBelow: an alias may contain itself.
const maxReferenceDepth = 3

// wordsBelow calls visit for the expanded scalars of a value: a word, a list of them, or a mapping to these.
func (d *decoder) wordsBelow(v value, visit func(v value, word string)) {
	d.wordsTo(v, maxReferenceDepth, visit)
}

func (d *decoder) wordsTo(v value, depth int, visit func(v value, word string)) {
	switch {
	case depth == 0 || d.budget <= 0:
	case v.node.Kind == yaml.ScalarNode:
		if v.isNull() {
			return
		}
		if s, ok := d.text(v, "a name must be a word"); ok {
			visit(v, s)
		}
	default:
		step := 1
		if v.node.Kind == yaml.MappingNode {
			step = 2
		}
		for i := step - 1; i < len(v.node.Content) && d.budget > 0; i += step {
			d.wordsTo(d.resolve(v.node.Content[i], join(v.path, i)), depth-1, visit)
		}
	}
}
