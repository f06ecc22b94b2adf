package ctl

// ACL is a row of `show acl`.
type ACL struct {
	Name  string    `json:"name"`
	State string    `json:"state"` // pending, ok, failed
	Error string    `json:"error,omitempty"`
	In    []string  `json:"in"`  // interfaces that apply it to what they receive
	Out   []string  `json:"out"` // and to what they send
	Rules []ACLRule `json:"rules"`
}

// ACLRule is a rule, as the configuration writes its conditions; absent ones hold for any packet. Packets and Bytes are what it
// decided since it came or changed, without what passes by an entry of `reflect`; absent when the dataplane cannot tell.
type ACLRule struct {
	Number          int      `json:"number"` // from 1
	Action          string   `json:"action"`
	Protocol        string   `json:"protocol,omitempty"`
	Source          string   `json:"source,omitempty"`
	Destination     string   `json:"destination,omitempty"`
	SourcePort      string   `json:"source_port,omitempty"`
	DestinationPort string   `json:"destination_port,omitempty"`
	ICMPType        string   `json:"icmp_type,omitempty"`
	ICMPCode        string   `json:"icmp_code,omitempty"`
	TCPFlags        []string `json:"tcp_flags,omitempty"`
	Packets         *uint64  `json:"packets,omitempty"`
	Bytes           *uint64  `json:"bytes,omitempty"`
}
