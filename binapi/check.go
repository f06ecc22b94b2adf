package binapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.fd.io/govpp/adapter"
	"go.fd.io/govpp/api"
)

// Identifier tells the id that a connected VPP gave to a message; its error for a message that VPP does not have is an
// *adapter.UnknownMsgError. *core.Connection implements it.
type Identifier interface {
	GetMessageID(api.Message) (uint16, error)
}

// Row is a message that VPP does not have as we know it.
type Row struct {
	Feature Feature
	Need    Need
	Message string // name
	Want    string // our CRC, eight hexadecimal digits
	Found   string // VPP's CRC; "" when VPP does not have the message at all, or its table was not read
}

// Report is the outcome of a check. Rows is empty when every message matches.
type Report struct {
	Rows []Row
}

// Supports reports whether VPP has every message of a feature.
func (r *Report) Supports(f Feature) bool {
	for _, row := range r.Rows {
		if row.Feature == f {
			return false
		}
	}
	return true
}

// IncompatibleError says that a VPP lacks messages that the router cannot do without.
type IncompatibleError struct {
	Report // optional rows too
}

func (e *IncompatibleError) Error() string {
	var required []Row
	for _, row := range e.Rows {
		if row.Need == Required {
			required = append(required, row)
		}
	}
	text := fmt.Sprintf("VPP is incompatible: %d of the messages that the router needs differ", len(required))
	if len(required) > 0 {
		first := required[0]
		text += fmt.Sprintf(": the first is %s, wanted %s, found %s", first.Message, first.Want, cmp.Or(first.Found, "none"))
	}
	return text
}

// Check compares the messages of Groups with those of a connected VPP. The report is never nil unless the error is of
// another kind; the error is *IncompatibleError when a required message does not match.
//
// socket is VPP's API socket. It is only used when something differs, to read VPP's message table by a second handshake, so
// that the report can tell a message that is missing from one that has changed. It may be "": then Found stays empty.
func Check(ctx context.Context, conn Identifier, socket string) (*Report, error) {
	report := &Report{}
	for _, g := range Groups() {
		for _, m := range g.Messages {
			_, err := conn.GetMessageID(m)
			var unknown *adapter.UnknownMsgError
			switch {
			case err == nil:
			case errors.As(err, &unknown):
				report.Rows = append(report.Rows, Row{g.Feature, g.Need, m.GetMessageName(), m.GetCrcString(), ""})
			default:
				return nil, fmt.Errorf("checking message %s: %w", m.GetMessageName(), err)
			}
		}
	}
	if len(report.Rows) == 0 {
		return report, nil
	}
	if socket != "" {
		// The table only makes the report better: without it, the report still stands.
		if table, err := ReadMessageTable(ctx, socket); err == nil {
			for i := range report.Rows {
				report.Rows[i].Found = table.CRC(report.Rows[i].Message)
			}
		}
	}
	for _, row := range report.Rows {
		if row.Need == Required {
			return report, &IncompatibleError{*report}
		}
	}
	return report, nil
}
