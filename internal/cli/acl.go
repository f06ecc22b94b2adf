package cli

import (
	"strconv"
	"strings"

	"rlr/internal/ctl"
)

// renderACLs prints an ACL at a time: where it is applied, and its rules with what they decided.
func renderACLs(s *screen, rows []ctl.ACL) {
	if len(rows) == 0 {
		s.printf("packets are not filtered: the configuration has no acl\n")
	}
	for i, a := range rows {
		if i > 0 {
			s.printf("\n")
		}
		where := "applied nowhere"
		if len(a.In)+len(a.Out) > 0 {
			var parts []string
			for _, p := range []struct {
				direction  string
				interfaces []string
			}{{"in ", a.In}, {"out ", a.Out}} {
				if len(p.interfaces) > 0 {
					parts = append(parts, p.direction+strings.Join(p.interfaces, ", "))
				}
			}
			where = strings.Join(parts, "; ")
		}
		s.printf("%s  %s  %s\n", s.paint(bold, clean(a.Name)), s.paint(stateStyle(a.State), a.State), clean(where))
		if a.Error != "" {
			s.printf("%s\n", s.paint(bad, clean(a.Error)))
		}
		t := newTable(" #", "Action", "Protocol", "Source", "Destination", "Other conditions", " Packets", " Bytes")
		for _, r := range a.Rules {
			t.add(c(strconv.Itoa(r.Number)), styled(aclStyle(r.Action), clean(r.Action)), c(orAny(r.Protocol)),
				c(orAny(r.Source)), c(orAny(r.Destination)), c(clean(aclConditions(r))), c(counted(r.Packets)), c(counted(r.Bytes)))
		}
		t.print(s)
	}
}

func orAny(s string) string {
	if s == "" {
		return "any"
	}
	return clean(s)
}

func counted(n *uint64) string {
	if n == nil {
		return "-"
	}
	return count(*n)
}

func aclStyle(action string) style {
	if action == "deny" {
		return bad
	}
	return good
}

func aclConditions(r ctl.ACLRule) string {
	var parts []string
	for _, p := range []struct{ what, value string }{
		{"from port ", r.SourcePort},
		{"to port ", r.DestinationPort},
		{"type ", r.ICMPType},
		{"code ", r.ICMPCode},
		{"flags ", strings.Join(r.TCPFlags, " ")},
	} {
		if p.value != "" {
			parts = append(parts, p.what+p.value)
		}
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}
