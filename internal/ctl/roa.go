package ctl

// ROAStatus is the first part of `show roa`: what is done with ROAs, and where they come from.
type ROAStatus struct {
	Policy  string      `json:"policy"` // strict, drop-invalid, off; "": roa is not configured
	IPv4    int         `json:"ipv4"`   // ROAs in the table
	IPv6    int         `json:"ipv6"`
	Sources []ROASource `json:"sources"`
}

// States of a ROASource.
const (
	ROAConnecting = "connecting" // nothing is known yet
	ROAOK         = "ok"
	ROAStale      = "stale"   // the last good data is used, for what came after it was bad, or nothing came
	ROAStandby    = "standby" // a server that is not needed
	ROAFailed     = "failed"  // and there is no data
	ROAExpired    = "expired" // a server's data was used for as long as it may be
)

// ROASource is a file, a URL or an RTR server.
type ROASource struct {
	Kind      string   `json:"kind"` // file, url, rtr
	Name      string   `json:"name"` // the path, URL or address
	State     string   `json:"state"`
	Used      bool     `json:"used"`           // its ROAs are in the table
	Over      string   `json:"over,omitempty"` // of a server: kernel or dataplane
	IPv4      int      `json:"ipv4"`
	IPv6      int      `json:"ipv6"`
	Skipped   int      `json:"skipped,omitempty"`    // entries that are no ROA
	SkippedBy string   `json:"skipped_by,omitempty"` // what is wrong with the first of them
	Serial    *uint32  `json:"serial,omitempty"`     // of a server that has told
	Session   *uint16  `json:"session,omitempty"`
	Version   *uint8   `json:"version,omitempty"`   // of RTR
	AgeS      *float64 `json:"age_s,omitempty"`     // since the data was known to be what the source has; absent without data
	ExpiresS  *float64 `json:"expires_s,omitempty"` // of a server: until its data is not used any more

	LastError     string  `json:"last_error,omitempty"` // the latest; it stays when all is well again
	LastErrorAgoS float64 `json:"last_error_ago_s,omitempty"`
}

// ROA is a row of the second part: AS may announce Prefix and what is within it, up to MaxLength. AS 0: nobody may.
type ROA struct {
	Prefix    string   `json:"prefix"`
	MaxLength int      `json:"max_length"`
	AS        uint32   `json:"as"`
	Sources   []string `json:"sources"`
}
