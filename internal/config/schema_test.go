package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// inSection puts a line "KEY: VALUE" into a section.
var inSection = map[*section]string{
	rootSection:         "%s\n",
	routerSection:       "router:\n  %s\n",
	dataplaneSection:    "dataplane:\n  %s\n",
	vppSection:          "dataplane:\n  kind: vpp\n  vpp:\n    %s\n",
	interfaceSection:    "interfaces:\n  eth0:\n    %s\n",
	memifSection:        "interfaces:\n  eth0:\n    memif:\n      %s\n",
	wireguardSection:    "interfaces:\n  eth0:\n    wireguard:\n      %s\n",
	peerSection:         "interfaces:\n  eth0:\n    wireguard:\n      peer:\n        %s\n",
	staticSection:       "static:\n  - %s\n",
	viaSection:          "static:\n  - via:\n    - %s\n",
	aclRuleSection:      "acl:\n  a:\n    - %s\n",
	interfaceACLSection: "interfaces:\n  eth0:\n    acl:\n      %s\n",
	bgpSection:          "bgp:\n  %s\n",
	redistributeSection: "bgp:\n  redistribute:\n    %s\n",
	neighborSection:     "bgp:\n  neighbors:\n    - %s\n",
	setsSection:         "sets:\n  %s\n",
	ruleSection:         "policies:\n  p:\n    - %s\n",
	matchSection:        "policies:\n  p:\n    - match:\n        %s\n",
	asPathSection:       "policies:\n  p:\n    - match:\n        as-path:\n          %s\n",
	setSection:          "policies:\n  p:\n    - set:\n        %s\n",
	editSection:         "policies:\n  p:\n    - set:\n        communities:\n          %s\n",
	dn42Section:         "bgp:\n  dn42:\n    %s\n",
	dn42LinkSection:     "bgp:\n  neighbors:\n    - dn42:\n        %s\n",
	familyPolicySection: "bgp:\n  neighbors:\n    - import:\n        %s\n",
	gracefulSection:     "bgp:\n  neighbors:\n    - graceful-restart:\n        %s\n",
	bfdSection:          "bgp:\n  neighbors:\n    - bfd:\n        %s\n",
	dynamicSection:      "bgp:\n  dynamic:\n    - %s\n",
	groupSection:        "bgp:\n  groups:\n    g:\n      %s\n",
	roaSection:          "roa:\n  %s\n",
	rtrSection:          "roa:\n  rtr:\n    - %s\n",
	maxPrefixSection:    "bgp:\n  neighbors:\n    - max-prefix:\n        %s\n",
	prefixLimitSection:  "bgp:\n  neighbors:\n    - max-prefix:\n        ipv4:\n          %s\n",
	addPathSection:      "bgp:\n  neighbors:\n    - add-path:\n        %s\n",
	roleSection:         "bgp:\n  neighbors:\n    - role:\n        %s\n",
	servicesSection:     "services:\n  %s\n",
	socksSection:        "services:\n  socks5:\n    %s\n",
	exposeSection:       "services:\n  expose:\n    - %s\n",
	controlSection:      "control:\n  %s\n",
	logSection:          "log:\n  %s\n",
}

// No key is ignored: nonsense as its value is an error at that value, and a key of a feature to come is an error itself.
func TestEveryKeyIsDecoded(t *testing.T) {
	for _, s := range append(slices.Clone(sections), groupSection) {
		for _, k := range s.keys {
			t.Run(s.name+" "+k.name, func(t *testing.T) {
				text := fmt.Sprintf(inSection[s], k.name+": [[[nonsense]]]")
				at := strings.Index(text, k.name+":")
				line := 1 + strings.Count(text[:at], "\n")
				col := at - strings.LastIndexByte(text[:at], '\n')
				_, err := Parse("x.yaml", []byte(text))
				errs, _ := err.(Errors)
				there := slices.ContainsFunc(errs, func(e Error) bool {
					switch {
					case e.Line != line:
						return false
					case k.later != "" && k.refers == nil:
						return e.NotYet && e.Col == col
					case k.later != "":
						return e.NotYet && e.Col == col || e.Col > col // the reference is wrong
					case k.never != "":
						return e.Col == col && strings.Contains(e.Msg, k.never)
					default:
						return e.Col > col
					}
				})
				if !there {
					t.Errorf("no error at the value of\n%s\n%v", text, err)
				}
			})
		}
	}
}

// The documentation has every key, in a table row that begins with it.
func TestEveryKeyIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, s := range sections {
		_, body, ok := strings.Cut(doc, "<!-- keys: "+s.name+" -->")
		if !ok {
			t.Errorf("docs/configuration.md has no table marked <!-- keys: %s -->", s.name)
			continue
		}
		body, _, _ = strings.Cut(body, "\n\n")
		rows := regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)`").FindAllStringSubmatch(body, -1)
		var documented []string
		for _, r := range rows {
			documented = append(documented, r[1])
		}
		for _, k := range s.keys {
			i := slices.Index(documented, k.name)
			if i < 0 {
				t.Errorf("%s: key %s is not documented", s.name, k.name)
				continue
			}
			documented = slices.Delete(documented, i, i+1)
			row := regexp.MustCompile("(?m)^\\| `" + k.name + "`.*$").FindString(body)
			if soon := strings.Contains(row, "not available yet"); soon != (k.later != "") {
				t.Errorf("%s: the row of %s says \"not available yet\": %v", s.name, k.name, soon)
			}
		}
		if len(documented) > 0 {
			t.Errorf("%s: documented, but no keys: %v", s.name, documented)
		}
	}
}

// The complete examples of the documentation and of the README are configurations.
func TestExamplesOfTheDocumentation(t *testing.T) {
	dir := keyFolder(t)
	count := 0
	for _, file := range []string{"../../docs/configuration.md", "../../README.md", "../../docs/dn42.md"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
			text := m[1]
			if !strings.Contains(text, "\nrouter:") && !strings.HasPrefix(text, "router:") {
				continue // a fragment
			}
			count++
			text = strings.ReplaceAll(text, "…", peerKey)
			for _, key := range []string{"router1.key", "router2.key", "tun12.key", "tun12.psk"} {
				text = strings.ReplaceAll(text, key, "good.key")
			}
			if _, err := parseIn(t, dir, filepath.Base(file), []byte(text)); err != nil {
				t.Errorf("an example of %s is wrong:\n%v\n%s", file, err, text)
			}
		}
	}
	if count < 3 {
		t.Errorf("only %d complete examples found", count)
	}
}

const peerKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
