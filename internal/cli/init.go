package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"rlr/internal/peering"
)

// addPeering adds the commands that write configurations, of ours and for others.
func addPeering(root *cobra.Command, o *options, c Commands) {
	if c.Check != nil && c.NewPrivateKey != nil && c.PublicKey != nil {
		root.AddCommand(initCommand(o, peering.Tools{
			NewPrivateKey: c.NewPrivateKey, PublicKey: c.PublicKey,
			Check: func(config string) error {
				if _, problems := c.Check(config); len(problems) > 0 {
					return Problems(problems)
				}
				return nil
			},
		}))
	}
	if c.Peerings != nil {
		root.AddCommand(peerCommand(o, c.Peerings))
	}
}

// initCommand writes first configurations. It has one kind so far, which has a word of its own.
func initCommand(o *options, t peering.Tools) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "init",
		Short:   "Write a first configuration",
		Example: "  rlr init dn42",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("init what? %s", strings.Join(childNames(cmd), ", "))
		},
	}
	cmd.AddCommand(initDN42(o, t))
	return cmd
}

// question is something that a node needs to know: a flag, and what is asked on a terminal without it. Of those that depend on
// each other, the later one is read later.
type question struct {
	flag, value, usage string
	ask                string // "": not asked, for it has a default or is rarely needed
	set                func(n *peering.Node, s string) error
	offer              func(n *peering.Node) string // the answer to an empty line; nil: there is none
}

func dn42Questions() []question {
	return []question{
		{
			flag: "name", value: "NAME", usage: "the router's `NAME`", ask: "Name of this router",
			set:   func(n *peering.Node, s string) error { n.Name = s; return peering.CheckName(s) },
			offer: func(*peering.Node) string { return hostName() },
		},
		{
			flag: "as", value: "NUMBER", usage: "our AS `NUMBER`", ask: "Your AS number",
			set: func(n *peering.Node, s string) (err error) { n.AS, err = peering.ParseAS(s); return err },
		},
		{
			flag: "prefix", value: "PREFIX,…", usage: "our registered `PREFIX`es, IPv4 and IPv6, separated by commas",
			ask: "Your registered prefixes, IPv4 and IPv6",
			set: func(n *peering.Node, s string) (err error) { n.Prefixes, err = peering.ParsePrefixes(s); return err },
		},
		{
			flag: "address", usage: "the node's own `ADDRESS`es (default the first one of each prefix)",
			set: func(n *peering.Node, s string) (err error) { n.Addresses, err = peering.ParseAddresses(s); return err },
		},
		{
			flag: "link-local", usage: "our link-local `ADDRESS` on the tunnel (default fe80:: and the last four digits of our AS number)",
			set: func(n *peering.Node, s string) (err error) { n.LinkLocal, err = peering.ParseLinkLocal(s); return err },
		},
		{
			flag: "peer-as", value: "NUMBER", usage: "the first peer's AS `NUMBER`", ask: "AS number of your first peer",
			set: func(n *peering.Node, s string) (err error) { n.Peer.AS, err = peering.ParseAS(s); return err },
		},
		{
			flag: "peer-name", usage: "what to call the peer and its interface: `NAME` (default as and its AS number)",
			set: func(n *peering.Node, s string) error { n.Peer.Name = s; return peering.CheckPeerName(s) },
		},
		{
			flag: "peer-endpoint", value: "HOST:PORT", usage: "where the peer listens: `HOST:PORT`, HOST for the usual port, or none",
			ask: "Where the peer listens: HOST:PORT, or none if it connects to you",
			set: func(n *peering.Node, s string) (err error) {
				n.Peer.Endpoint, err = peering.ParseEndpoint(s, peering.PortFor(n.AS))
				return err
			},
		},
		{
			flag: "peer-key", value: "KEY", usage: "the peer's WireGuard public `KEY`", ask: "WireGuard public key of the peer",
			set: func(n *peering.Node, s string) (err error) { n.Peer.PublicKey, err = peering.ParseKey(s); return err },
		},
		{
			flag: "peer-address", value: "ADDRESS", usage: "the peer's link-local `ADDRESS`", ask: "Link-local address of the peer",
			set: func(n *peering.Node, s string) (err error) {
				n.PeerAddress, err = peering.ParseLinkLocal(s)
				return err
			},
			offer: func(n *peering.Node) string { return peering.LinkLocalOf(n.Peer.AS).String() },
		},
		{
			flag: "listen", usage: "the UDP `PORT` at which the peer finds us (default 2 and the last four digits of its AS number)",
			set: func(n *peering.Node, s string) (err error) { n.Listen, err = peering.ParsePort(s); return err },
		},
		{
			flag: "roa", usage: "the `URL` of the table of ROAs, or none (default " + peering.DefaultROA + ")",
			set: func(n *peering.Node, s string) (err error) { n.ROA, err = peering.ParseROA(s); return err },
		},
	}
}

// hostName is the machine's, as far as a router can have it.
func hostName() string {
	s, err := os.Hostname()
	if s, _, _ = strings.Cut(s, "."); err != nil || peering.CheckName(s) != nil {
		return ""
	}
	return s
}

func initDN42(o *options, t peering.Tools) *cobra.Command {
	var f peering.Files
	questions := dn42Questions()
	cmd := &cobra.Command{
		Use:   "dn42",
		Short: "Write the configuration and the key of a DN42 node with its first peer",
		Long: `Write the configuration and the key of a DN42 node with its first peer, so that "rlr check" accepts them. What no flag says
is asked, if there is a terminal.

What DN42's networks have agreed on is filled in: for each peer a WireGuard tunnel of its own, which listens at 2 and the last
four digits of the peer's AS number; the link-local address fe80:: and the last four digits of our AS number, the same on all
tunnels; one BGP session over it, for IPv4 and IPv6. The prefixes are announced, and anchored by blackholes.

The key is in NAME.key beside the configuration, for its owner only; "rlr peer" prints what the peer needs to know.`,
		Example: `  rlr init dn42
  rlr init dn42 --name router1 --as 4242420207 --prefix 172.20.1.0/27,fd42:1::/48 --peer-as 4242420001 --peer-endpoint peer.example.net --peer-key xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= --peer-address fe80::1`,
		Args: cobra.NoArgs,
	}
	for _, q := range questions {
		cmd.Flags().StringSlice(q.flag, nil, q.usage)
		must(cmd.RegisterFlagCompletionFunc(q.flag, cobra.NoFileCompletions))
	}
	cmd.Flags().StringVarP(&f.Config, "config", "c", "", "write the configuration to `FILE` (default NAME.yaml)")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	cmd.Flags().StringVar(&f.Key, "private-key-file", "", "use the WireGuard private key in `FILE` (default: make one in NAME.key)")
	cmd.Flags().BoolVar(&f.Force, "force", false, "replace files that are there, also a key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n := &peering.Node{ROA: peering.DefaultROA}
		if err := answer(cmd, n, questions); err != nil {
			return err
		}
		if f.Config == "" {
			f.Config = n.Name + ".yaml"
		}
		if f.Existing = f.Key != ""; !f.Existing {
			f.Key = filepath.Join(filepath.Dir(f.Config), n.Name+".key")
		}
		if err := n.Write(f, t); err != nil {
			return fmt.Errorf("init: %w", err)
		}
		return printNode(cmd, o, n, f)
	}
	return cmd
}

// answer fills the node from the flags and, where there is a terminal, from what is typed.
func answer(cmd *cobra.Command, n *peering.Node, questions []question) error {
	var lines *typed
	if in, ok := cmd.InOrStdin().(*os.File); ok && Terminal(in) {
		lines = &typed{in: bufio.NewReader(in), file: in, out: cmd.ErrOrStderr()}
	}
	var missing []string
	for _, q := range questions {
		given, err := cmd.Flags().GetStringSlice(q.flag)
		must(err)
		switch {
		case cmd.Flags().Changed(q.flag):
			if err := q.set(n, strings.Join(given, ",")); err != nil {
				return usage("--%s: %v", q.flag, err)
			}
		case q.ask == "":
		case lines == nil:
			missing = append(missing, "--"+q.flag+" "+q.value)
		default:
			if err := lines.ask(cmd, n, q); err != nil {
				return err
			}
		}
	}
	if len(missing) > 0 {
		return usage("missing: %s; give these flags, or run rlr init dn42 on a terminal, where it asks", strings.Join(missing, ", "))
	}
	return nil
}

// typed is a person at a terminal.
type typed struct {
	in   *bufio.Reader
	file *os.File
	out  io.Writer
}

// ask asks until the answer is right.
func (t *typed) ask(cmd *cobra.Command, n *peering.Node, q question) error {
	offer := ""
	if q.offer != nil {
		offer = q.offer(n)
	}
	for {
		if offer != "" {
			fmt.Fprintf(t.out, "%s [%s]: ", q.ask, offer)
		} else {
			fmt.Fprintf(t.out, "%s: ", q.ask)
		}
		if t.in.Buffered() == 0 {
			if err := waitReadable(cmd.Context(), t.file); err != nil {
				return err // ^C
			}
		}
		line, err := t.in.ReadString('\n')
		if err != nil {
			fmt.Fprintln(t.out)
			if errors.Is(err, io.EOF) {
				return usage("the questions were not answered; nothing was written")
			}
			return err
		}
		if line = strings.TrimSpace(line); line == "" {
			line = offer
		}
		if err = q.set(n, line); err == nil {
			return nil
		}
		fmt.Fprintln(t.out, err)
	}
}

func printNode(cmd *cobra.Command, o *options, n *peering.Node, f peering.Files) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), map[string]string{"config": f.Config, "private_key_file": f.Key, "public_key": n.PublicKey})
	}
	s := o.screen(cmd)
	s.printf("%s: the configuration, which rlr check accepts\n", f.Config)
	s.printf("%s: the private key; the public one is %s\n", f.Key, n.PublicKey)
	s.printf("\nWhat the peer needs:  rlr peer -c %s --endpoint HOST\n", f.Config)
	s.printf("Then:                 rlr run -c %s\n", f.Config)
	return s.done()
}
