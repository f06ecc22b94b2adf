package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// Client asks a running router. Every method ends with its context; unknown fields in answers are ignored, so that an older
// command reads a newer router.
type Client struct {
	name   string
	socket string
	http   *http.Client
}

// NewClient returns a client for the router; it connects with the first request.
func NewClient(r Running) *Client {
	dialer := &net.Dialer{}
	return &Client{
		name:   r.Name,
		socket: r.Socket(),
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", r.Socket())
			},
			ResponseHeaderTimeout: 0, // a handler may take long; the context bounds it
		}},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request and hands every row to row. It returns the end frame.
func (c *Client) do(ctx context.Context, path string, params any, row func(json.RawMessage) error) (json.RawMessage, error) {
	body, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("%s: encode parameters: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://rlr"+apiPrefix+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.dialError(ctx, err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var f frame
		if err := dec.Decode(&f); err != nil {
			return nil, c.streamError(ctx, resp, err)
		}
		switch {
		case f.Error != nil:
			return nil, f.Error
		case f.End != nil:
			return f.End, nil
		case f.Row != nil && row != nil:
			if err := row(f.Row); err != nil {
				return nil, err
			}
		}
	}
}

func (c *Client) dialError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return NotFound("router %s is not running: start it with rlr run -c FILE", c.name)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("router %s belongs to another user: %w", c.name, err)
	}
	return fmt.Errorf("ask router %s: %w", c.name, err)
}

func (c *Client) streamError(ctx context.Context, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Unavailable("router %s ended before its answer did", c.name)
	}
	return fmt.Errorf("router %s (rlr %s) gave an answer that this command does not understand: %w",
		c.name, resp.Header.Get(versionHeader), err)
}

// stream calls a method and decodes each row as R.
func streamRows[R any](ctx context.Context, c *Client, path string, params any, visit func(R) error) (json.RawMessage, error) {
	return c.do(ctx, path, params, func(raw json.RawMessage) error {
		var r R
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("router %s: row of %s: %w", c.name, path, err)
		}
		return visit(r)
	})
}

func collect[R any](ctx context.Context, c *Client, path string, params any) ([]R, error) {
	rows := []R{} // never null in JSON
	_, err := streamRows(ctx, c, path, params, func(r R) error {
		rows = append(rows, r)
		return nil
	})
	return rows, err
}

func single[R any](ctx context.Context, c *Client, path string, params any) (R, error) {
	var out R
	got := false
	_, err := streamRows(ctx, c, path, params, func(r R) error {
		out, got = r, true
		return nil
	})
	if err == nil && !got {
		err = fmt.Errorf("router %s: empty answer to %s", c.name, path)
	}
	return out, err
}

var none = struct{}{}

// Status answers `show status`.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return single[Status](ctx, c, pathStatus, none)
}

// Interfaces answers `show interfaces`.
func (c *Client) Interfaces(ctx context.Context) ([]Interface, error) {
	return collect[Interface](ctx, c, pathInterfaces, none)
}

// Neighbors answers `show neighbors`.
func (c *Client) Neighbors(ctx context.Context) ([]Neighbor, error) {
	return collect[Neighbor](ctx, c, pathNeighbors, none)
}

// Protocols answers `show protocols`.
func (c *Client) Protocols(ctx context.Context) ([]Protocol, error) {
	return collect[Protocol](ctx, c, pathProtocols, none)
}

// BGP answers `show bgp`.
func (c *Client) BGP(ctx context.Context) ([]BGPSession, error) {
	return collect[BGPSession](ctx, c, pathBGP, none)
}

// BFD answers `show bfd`.
func (c *Client) BFD(ctx context.Context) ([]BFDSession, error) {
	return collect[BFDSession](ctx, c, pathBFD, none)
}

// WireGuard answers `show wireguard`.
func (c *Client) WireGuard(ctx context.Context) ([]WireGuard, error) {
	return collect[WireGuard](ctx, c, pathWireGuard, none)
}

// Errors answers `show errors`.
func (c *Client) Errors(ctx context.Context) ([]ErrorRecord, error) {
	return collect[ErrorRecord](ctx, c, pathErrors, none)
}

// ACL answers `show acl`.
func (c *Client) ACL(ctx context.Context) ([]ACL, error) {
	return collect[ACL](ctx, c, pathACL, none)
}

// Routes streams `show route`. An error of visit ends the request and is returned.
func (c *Client) Routes(ctx context.Context, f RouteFilter, visit func(Route) error) error {
	_, err := streamRows(ctx, c, pathRoutes, f, visit)
	return err
}

// RouteCount answers `show route count`.
func (c *Client) RouteCount(ctx context.Context, f RouteFilter) (RouteCount, error) {
	return single[RouteCount](ctx, c, pathRouteCount, f)
}

// FIB streams `show fib`.
func (c *Client) FIB(ctx context.Context, f FIBFilter, visit func(FIBEntry) error) error {
	_, err := streamRows(ctx, c, pathFIB, f, visit)
	return err
}

// ROA answers what `show roa` says of the sources.
func (c *Client) ROA(ctx context.Context) (ROAStatus, error) {
	return single[ROAStatus](ctx, c, pathROA, none)
}

// ROAs streams the ROAs themselves.
func (c *Client) ROAs(ctx context.Context, f ROAFilter, visit func(ROA) error) error {
	_, err := streamRows(ctx, c, pathROAs, f, visit)
	return err
}

// Log streams `show log`.
func (c *Client) Log(ctx context.Context, f LogFilter, visit func(LogRecord) error) error {
	_, err := streamRows(ctx, c, pathLog, f, visit)
	return err
}

// Ping sends echo requests from the router's dataplane and streams the replies.
func (c *Client) Ping(ctx context.Context, r ProbeRequest, visit func(ProbeReply) error) (ProbeSummary, error) {
	var sum ProbeSummary
	end, err := streamRows(ctx, c, pathPing, r, visit)
	if err != nil {
		return sum, err
	}
	if err := json.Unmarshal(end, &sum); err != nil {
		return sum, fmt.Errorf("router %s: summary of ping: %w", c.name, err)
	}
	return sum, nil
}

// Traceroute streams the hops towards the target.
func (c *Client) Traceroute(ctx context.Context, r ProbeRequest, visit func(ProbeReply) error) error {
	_, err := streamRows(ctx, c, pathTraceroute, r, visit)
	return err
}

// VPPCtl runs one line on the dataplane's command line.
func (c *Client) VPPCtl(ctx context.Context, line string) (VPPCtlResult, error) {
	return single[VPPCtlResult](ctx, c, pathVPPCtl, VPPCtlRequest{Line: line})
}

// Neighbor adds, deletes, enables, disables or resets a BGP neighbour.
func (c *Client) Neighbor(ctx context.Context, r NeighborRequest) (Done, error) {
	return single[Done](ctx, c, pathNeighbor, r)
}

// Route adds or deletes a static route.
func (c *Client) Route(ctx context.Context, r RouteRequest) (Done, error) {
	return single[Done](ctx, c, pathRoute, r)
}

// FIBDo couples, decouples or resyncs.
func (c *Client) FIBDo(ctx context.Context, r FIBRequest) (FIBResult, error) {
	return single[FIBResult](ctx, c, pathFIBDo, r)
}

// Reload makes the router read its configuration again.
func (c *Client) Reload(ctx context.Context) (Done, error) {
	return single[Done](ctx, c, pathReload, none)
}

// Restart makes the router execute itself again.
func (c *Client) Restart(ctx context.Context) (Done, error) {
	return single[Done](ctx, c, pathRestart, none)
}

// Stop makes the router end. It returns when the router has begun to; see Running.WaitStopped.
func (c *Client) Stop(ctx context.Context, r StopRequest) (Done, error) {
	return single[Done](ctx, c, pathStop, r)
}
