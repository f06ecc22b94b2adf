package deptest

// Rules is the import table of the design, a row per folder.
var Rules = []Rule{
	{
		Folder: "bgp", May: []string{"rlr/fib", "rlr/hoststack", "github.com/osrg/gobgp/v4", "google.golang.org/grpc", "google.golang.org/protobuf"},
		Why: "bgp decides and hands its best paths to fib; it reaches peers through hoststack alone, and knows no dataplane: that is how the same speaker runs on VPP and on minivpp; grpc and protobuf are what GoBGP's API is made of",
	},
	{
		Folder: "bgp/rpki", May: []string{"github.com/osrg/gobgp/v4/pkg/packet/rtr", "github.com/gaissmai/bart"},
		Why: "rpki collects and judges ROAs: it needs RTR's PDUs, which GoBGP has, and a longest-prefix match; it knows no speaker, and cmd gives it its connections",
	},
	{
		Folder: "fib", May: nil,
		Why: "fib is the neutral middle between those who want routes and the one who writes them: whatever it imported, both would depend on",
	},
	{
		Folder: "vppagent", May: []string{"rlr/fib", "rlr/binapi", "go.fd.io/govpp"},
		Why: "vppagent is the only writer of the dataplane's configuration, told what to write by fib and cmd; it must not know why (bgp, config), nor which dataplane answers (minivpp)",
	},
	{
		Folder: "binapi", May: []string{"go.fd.io/govpp"},
		Why: "binapi is the list of messages and their conversions: below everything that speaks the API",
	},
	{
		Folder: "hoststack", May: []string{"rlr/memif", "github.com/ebitengine/purego", "golang.org/x/net", "golang.org/x/sys"},
		Why: "hoststack owns the interfaces that dataplanes implement and cmd wires, so that neither side imports the other; x/net is for ICMP probes, memif carries them to a dataplane in another process, purego is for libvppcom without cgo, x/sys for passing connections from its helper process",
	},
	{
		Folder: "memif", May: []string{"golang.org/x/sys"},
		Why: "memif is a protocol by itself, usable without the rest of the router",
	},
	{
		Folder: "wg", May: []string{"rlr/memif", "golang.zx2c4.com/wireguard", "golang.org/x/sys", "golang.org/x/crypto"},
		Why: "a WireGuard link is a memif interface to whatever dataplane is at its other end",
	},
	{
		Folder: "rootless", May: []string{"golang.org/x/sys"},
		Why: "rootless probes the host and supervises a process: it knows neither the process's API nor the router",
	},
	{
		// The design's row has no binapi; its conversions between netip and the API's types are the same on both sides of
		// the socket, and writing them twice would only give them two sets of mistakes.
		Folder: "minivpp", May: []string{"rlr/memif", "rlr/binapi", "go.fd.io/govpp", "github.com/gaissmai/bart", "gvisor.dev/gvisor", "golang.org/x/sys"},
		Why: "minivpp is the other side of the binary API: the more it shared with vppagent or fib, the less their agreement would prove",
	},
	{
		Folder: "minivpp/plane", May: []string{"rlr/memif", "go.fd.io/govpp/api", "github.com/gaissmai/bart", "gvisor.dev/gvisor", "golang.org/x/sys"},
		Why: "the forwarding plane moves packets: messages and their conversions are the API server's, above it",
	},
	{
		Folder: "internal/config", May: []string{"gopkg.in/yaml.v3"},
		Why: "a configuration is values: the packages that it configures do not know it, and it does not know them",
	},
	{
		Folder: "internal/ctl", May: nil,
		Why: "ctl is the protocol between the command and the router: both sides import it, so it imports neither",
	},
	{
		Folder: "internal/peering", May: nil,
		Why: "a peering is text made of values: the command prints it for both sides, and needs no part of the router for it",
	},
	{
		Folder: "internal/cli", May: []string{"rlr/internal/ctl", "rlr/internal/peering", "github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/sys"},
		Why: "the command talks to a running router by its control socket; daemon packages in it would let it act behind the router's back",
	},
	{
		Folder: "internal/birdctl", May: []string{"rlr/internal/ctl"},
		Why: "BIRD's control protocol is another rendering of the same status",
	},
	{
		Folder: "internal/web", May: []string{"rlr/internal/ctl", "golang.org/x/net/netutil", "github.com/prometheus/client_golang"},
		Why: "the status page, the metrics and what supervisors ask are another rendering of the same status; x/net limits its connections, and Prometheus' own library knows its formats",
	},
	{
		Folder: "internal/proxy", May: nil,
		Why: "it joins connections, and must not know whose stacks they are on",
	},
	{
		Folder: "internal/deptest", May: nil,
		Why: "the test of the imports needs a parser only",
	},
	{
		Folder: "internal/man", May: []string{"rlr/internal/cli", "github.com/spf13/cobra", "github.com/spf13/pflag"},
		Why: "the manual is made of the command tree and the documentation alone",
	},
	{
		Folder: "internal/netnstest", May: []string{"golang.org/x/sys"},
		Why: "netnstest runs other routers in namespaces for tests; it must not know ours, whose tests use it",
	},
	{
		Folder: "internal/testreport", May: nil,
		Why: "the report of the tests must work when nothing else does",
	},
	{
		Folder: "lab", May: []string{"rlr/internal/ctl", "rlr/memif", "golang.org/x/sys", "gopkg.in/yaml.v3"},
		Why: "a lab's checks use only the command line, JSON and packets: what they see is what an operator sees",
	},
	{
		Folder: "docker", May: nil,
		Why: "the images' folder holds no code, only the test of its files",
	},
	{
		Folder: "cmd", Any: true,
		Why: "a program wires everything",
	},
}
