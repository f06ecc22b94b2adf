package rootless

import "fmt"

// Finding is one line of `rlr doctor`: what the host has, what follows for the router, and what to do about it.
type Finding struct {
	Subject     string `json:"subject"`
	Value       string `json:"value"`
	OK          bool   `json:"ok"`
	Consequence string `json:"consequence"`
	Cure        string `json:"cure,omitempty"`
}

// minimumMemory is what the embedded dataplane with a DN42-sized table is comfortable with.
const minimumMemory = 64 << 20

// Findings explains the host to an operator. Nothing here is fatal: the embedded dataplane needs none of it.
func (h Host) Findings() []Finding {
	list := []Finding{h.privileges(), h.memory(), h.processors()}
	if h.TunDevice == Available {
		list = append(list, Finding{"/dev/net/tun", "available", true, "not needed: links are WireGuard over UDP sockets", ""})
	} else {
		list = append(list, Finding{"/dev/net/tun", h.TunDevice.String(), true, "not needed: links are WireGuard over UDP sockets; a tap link would need it", ""})
	}
	list = append(list, Finding{"user namespaces", h.UserNamespaces.String(), true, "not needed", ""})
	list = append(list, Finding{"hugepages", fmt.Sprintf("%d free", h.HugepagesFree), true, "not needed", ""})
	if h.VPP == "" {
		list = append(list, Finding{"vpp", "not found", true, "the embedded dataplane forwards", "install VPP from FD.io's packages, or set VPP_PREFIX to a folder with bin/vpp"})
	} else {
		list = append(list, Finding{"vpp", h.VPP, true, "found; this version of rlr forwards by its embedded dataplane only", ""})
	}
	return list
}

func (h Host) privileges() Finding {
	f := Finding{Subject: "privileges", OK: true, Consequence: "none are needed"}
	f.Value = fmt.Sprintf("uid %d, %d capabilities", h.UID, h.CapabilityCount())
	if h.NoNewPrivs {
		f.Value += ", no_new_privs"
	}
	if h.CapabilityCount() > 0 {
		f.Consequence = "the router never uses them"
		f.Cure = "run it as an ordinary user: setpriv --reuid USER --clear-groups --inh-caps=-all --no-new-privs rlr run …"
	}
	return f
}

func (h Host) memory() Finding {
	f := Finding{Subject: "memory", OK: true, Consequence: "enough for the embedded dataplane"}
	switch {
	case h.MemoryLimit == 0:
		f.Value, f.Consequence = "unknown", "the router cannot tell how many routes fit"
	case h.MemoryLimit < minimumMemory:
		f.OK = false
		f.Consequence = "the router may be killed by the kernel for lack of memory"
		f.Cure = fmt.Sprintf("give it at least %d MiB", minimumMemory>>20)
		fallthrough
	default:
		f.Value = fmt.Sprintf("%d MiB", h.MemoryLimit>>20)
	}
	return f
}

func (h Host) processors() Finding {
	f := Finding{Subject: "processors", Value: fmt.Sprint(h.Cores), OK: true, Consequence: "enough"}
	if h.CPUQuota > 0 {
		f.Value += fmt.Sprintf(", limited to %.2f cores of time", h.CPUQuota)
		if h.CPUQuota < 0.1 {
			f.OK = false
			f.Consequence = "BGP keepalives can be late when the quota is used up"
			f.Cure = "allow at least a tenth of a core"
		}
	}
	return f
}
