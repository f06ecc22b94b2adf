package rootless

import (
	"errors"
	"fmt"
)

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
	list = append(list, Finding{"hugepages", fmt.Sprintf("%d free", h.HugepagesFree), true, "not needed: VPP is given pages of 4 KiB", ""})
	return append(list, h.vpp()...)
}

const embeddedInstead = "the embedded dataplane forwards"

// CheckVPP says whether a router can run on VPP here, and with which sizes. The error says what is missing and what would
// help: ErrNoVPP, a *MemoryError, or another one. held is Size's.
func (h Host) CheckVPP(held int) (Sizes, error) {
	if h.VPP == "" {
		return Sizes{}, ErrNoVPP
	}
	for _, f := range h.vpp() {
		if !f.OK {
			return Sizes{}, fmt.Errorf("%s: %s: %s; %s", f.Subject, f.Value, f.Consequence, f.Cure)
		}
	}
	return Size(h, held)
}

// ErrNoVPP means that no vpp program was found.
var ErrNoVPP = errors.New("no vpp program found: install VPP from FD.io's packages, or set VPP_PREFIX to a folder with bin/vpp")

// vpp is what is there of VPP, and what of it can be used.
func (h Host) vpp() []Finding {
	if h.VPP == "" {
		return []Finding{{"vpp", "not found", true, embeddedInstead, "install VPP from FD.io's packages, or set VPP_PREFIX to a folder with bin/vpp"}}
	}
	found := Finding{"vpp", h.VPP, true, "VPP forwards, unless the configuration says kind: embedded", ""}
	if h.VPPVersion != "" {
		found.Value += ", release " + h.VPPVersion
	}
	if _, err := availablePlugins(h.VPP); err != nil {
		found.OK, found.Consequence, found.Cure = false, embeddedInstead, err.Error()
	}
	library := Finding{"libvppcom", h.VPPLibrary, true, "BGP runs on VPP's own TCP stack", ""}
	if h.VPPLibrary == "" {
		library = Finding{"libvppcom", "not found", false, "BGP could not use VPP's TCP stack: " + embeddedInstead, "install FD.io's package vpp of the same release: it has libvppcom.so"}
	}
	shared := Finding{"/dev/shm", h.SharedMemory.String(), true, "VPP keeps less than 1 MiB there", ""}
	if h.SharedMemory != Available && h.SharedMemory != Unknown {
		shared.OK, shared.Consequence = false, "VPP would not start: "+embeddedInstead
		shared.Cure = "mount a tmpfs at /dev/shm that this user can write to"
	}
	return []Finding{found, library, shared}
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
	if h.VPP == "" || !f.OK {
		return f
	}
	sizes, err := Size(h, 0)
	if err != nil {
		f.OK = false
		f.Consequence += ", and too little for VPP: " + embeddedInstead
		f.Cure = fmt.Sprintf("give it at least %d MiB", uint64(MinimumVPPMemory)>>20)
		return f
	}
	f.Consequence = fmt.Sprintf("VPP gets a heap of %d MiB and a stats segment of %d MiB: room for about %d routes", sizes.Heap>>20, sizes.Stats>>20, sizes.Routes())
	return f
}

func (h Host) processors() Finding {
	f := Finding{Subject: "processors", Value: fmt.Sprint(h.Cores), OK: true, Consequence: "enough"}
	if h.VPP != "" {
		f.Consequence = "enough: an idle VPP takes about 6 % of one, and is not bound to it"
	}
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
