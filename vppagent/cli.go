package vppagent

import (
	"context"
	"fmt"

	"go.fd.io/govpp/api"
	"go.fd.io/govpp/binapi/vlib"
)

// CLI runs a line of VPP's command line (cli_inband) and returns what it prints, within a minute. VPP answers nothing else
// meanwhile. When it does not know the command, the error is an api.VPPApiError and the text says why.
func (a *Agent) CLI(ctx context.Context, line string) (string, error) {
	l, err := a.current()
	if err != nil {
		return "", err
	}
	var reply vlib.CliInbandReply
	l.commands.Add(1)
	defer l.commands.Add(-1)
	if err := l.s.ask(ctx, cliTimeout, &vlib.CliInband{Cmd: line}, &reply); err != nil {
		return "", fmt.Errorf("vppctl %s: %w", line, err)
	}
	if err := api.RetvalToVPPApiError(reply.Retval); err != nil {
		return reply.Reply, fmt.Errorf("vppctl %s: %w", line, err)
	}
	return reply.Reply, nil
}
