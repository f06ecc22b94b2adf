package config

import (
	"slices"
	"strings"
)

// checkPolicies is about what rules and neighbours refer to, and about what each direction can do.
func (d *decoder) checkPolicies(c *Config) {
	there := map[string][]string{}
	for _, s := range c.Sets.Prefixes {
		there["prefixes"] = append(there["prefixes"], s.Name)
	}
	for _, s := range c.Sets.AS {
		there["as"] = append(there["as"], s.Name)
	}
	for _, s := range c.Sets.Communities {
		there["communities"] = append(there["communities"], s.Name)
	}
	for _, s := range c.Sets.LargeCommunities {
		there["large-communities"] = append(there["large-communities"], s.Name)
	}
	for _, w := range d.setNames {
		if !slices.Contains(there[w.kind], w.name) {
			d.errorf(w.value, "sets.%s has no set %q; %s", w.kind, shorten(w.name), d.exists("set", w.name, there[w.kind]))
		}
	}
	for i := range c.BGP.Groups {
		g := &c.BGP.Groups[i]
		d.checkExists(c, join("bgp/groups", g.Name)+"/import", g.Settings.Import, g.Settings.FamilyImport)
		d.checkExists(c, join("bgp/groups", g.Name)+"/export", g.Settings.Export, g.Settings.FamilyExport)
	}
	for i := range c.BGP.Neighbors {
		n, path := &c.BGP.Neighbors[i], join("bgp/neighbors", i)
		d.checkExists(c, path+"/import", n.Import, n.FamilyImport)
		d.checkExists(c, path+"/export", n.Export, n.FamilyExport)
		d.checkDirections(c, n, path)
		used := func(name Policy) bool {
			for _, f := range n.Families {
				if PolicyOf(n.Import, n.FamilyImport, f) == name || PolicyOf(n.Export, n.FamilyExport, f) == name {
					return true
				}
			}
			return false
		}
		if d.has(path+"/dn42") && !used(PolicyDN42) {
			d.errorPath(path+"/dn42", "dn42 describes the link for the policy dn42, which neighbor %s has neither as import nor as export; write import: dn42, export: dn42, or remove it", n.Name)
		}
	}
	for i := range c.BGP.Dynamic {
		d.checkDirections(c, &c.BGP.Dynamic[i].Settings, join("bgp/dynamic", i))
	}
}

// checkDirections checks a neighbour's policies, or those that dynamic ones get.
func (d *decoder) checkDirections(c *Config, n *Neighbor, path string) {
	n.Import, n.FamilyImport = d.checkFamilies(c, n, path+"/import", n.Import, n.FamilyImport)
	n.Export, n.FamilyExport = d.checkFamilies(c, n, path+"/export", n.Export, n.FamilyExport)
}

// checkFamilies checks the policies of one direction, and makes the shortest of them: one policy where all families have the
// same.
func (d *decoder) checkFamilies(c *Config, n *Neighbor, path string, all Policy, of map[Family]Policy) (Policy, map[Family]Policy) {
	for f := range of {
		if !slices.Contains(n.Families, f) && len(n.Families) > 0 {
			d.errorPath(path+"/"+string(f), "neighbor %s does not carry %s; remove it, or add it to families", n.Name, f)
		}
	}
	if of == nil {
		d.checkUse(c, n, path, all)
		return all, nil
	}
	full := map[Family]Policy{}
	same := true
	for _, f := range n.Families {
		full[f] = PolicyOf(all, of, f)
		same = same && full[f] == full[n.Families[0]]
		if _, written := of[f]; written {
			d.checkUse(c, n, path+"/"+string(f), full[f])
		}
	}
	if same && len(n.Families) > 0 {
		return full[n.Families[0]], nil
	}
	return "", full
}

// checkExists reports policies that do not exist, where they are written. path ends with the direction.
func (d *decoder) checkExists(c *Config, path string, all Policy, of map[Family]Policy) {
	known := slices.Clone(builtinPolicies)
	for _, r := range c.Policies {
		known = append(known, r.Name)
	}
	report := func(path string, p Policy) {
		if p != "" && d.has(path) && !slices.Contains(known, string(p)) {
			d.errorPath(path, "policy %q does not exist; %s", shorten(string(p)), d.exists("policy", string(p), known))
		}
	}
	if of == nil {
		report(path, all)
	}
	for _, f := range []Family{IPv4, IPv6} {
		report(path+"/"+string(f), of[f])
	}
}

// checkUse reports a policy that cannot be used where it is. path ends with the direction, or with a family after it.
func (d *decoder) checkUse(c *Config, n *Neighbor, path string, p Policy) {
	if p == "" || slices.Contains(builtinPolicies, string(p)) {
		return
	}
	i := slices.IndexFunc(c.Policies, func(r RulePolicy) bool { return r.Name == string(p) })
	if i < 0 {
		return
	}
	importing := slices.Contains(strings.Split(path, "/"), "import")
	for k, r := range c.Policies[i].Rules {
		switch {
		case importing && r.Set.NextHop == "self":
			d.errorPath(path, "policy %s makes ourselves the next hop (rule %d), which only an export can; use another policy for import", p, k+1)
		case !importing && n.AS == c.Router.AS && r.Match.NextHop != nil:
			d.errorPath(path, "policy %s asks for the next hop (rule %d), which an export to our own AS cannot; ask for it on import, and mark the routes by a community", p, k+1)
		}
	}
}
