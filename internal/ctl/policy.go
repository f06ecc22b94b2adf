package ctl

import "context"

// PolicyRequest asks what policies do to a route. Without any of the attributes it is about the route that there is.
type PolicyRequest struct {
	Prefix    string `json:"prefix"`
	Neighbor  string `json:"neighbor"`
	Direction string `json:"direction"` // import or export; "" is both

	Suppose          bool     `json:"suppose,omitempty"` // the following is the route, even where it is empty
	ASPath           string   `json:"as_path,omitempty"`
	Communities      []string `json:"communities,omitempty"`
	LargeCommunities []string `json:"large_communities,omitempty"`
	Origin           string   `json:"origin,omitempty"`
	NextHop          string   `json:"nexthop,omitempty"`
	MED              *uint32  `json:"med,omitempty"`
}

// PolicyResult is what one direction's policy does.
type PolicyResult struct {
	Prefix    string `json:"prefix"`
	Neighbor  string `json:"neighbor"`
	Direction string `json:"direction"`
	Supposed  bool   `json:"supposed"`       // the route is not one that there is
	From      string `json:"from,omitempty"` // the neighbour that announced it
	Accepted  bool   `json:"accepted"`
	Policy    string `json:"policy"`         // whose rule decided
	Rule      int    `json:"rule,omitempty"` // its number, from 1
	RuleName  string `json:"rule_name,omitempty"`
	Reason    string `json:"reason"`
	Validity  string `json:"validity"` // route origin validation: valid, invalid, unknown

	// Blocked says why an accepted route is not announced all the same.
	Blocked string `json:"blocked,omitempty"`
	// InTable says whether an imported route is in the table; it is absent where that is not the question.
	InTable *bool `json:"in_table,omitempty"`

	Before PolicyRoute  `json:"before"`
	After  PolicyRoute  `json:"after"`
	Rules  []PolicyRule `json:"rules"` // what was looked at, in order
}

// PolicyRoute is a route as policies see it.
type PolicyRoute struct {
	ASPath           string   `json:"as_path"`
	NextHop          string   `json:"nexthop"`
	Origin           string   `json:"origin"`
	LocalPref        uint32   `json:"local_pref"`
	MED              uint32   `json:"med"`
	Communities      []string `json:"communities"`
	LargeCommunities []string `json:"large_communities"`
}

// PolicyRule is what one rule did.
type PolicyRule struct {
	Policy  string   `json:"policy"` // "" is what the router does to all
	Rule    int      `json:"rule,omitempty"`
	Name    string   `json:"name,omitempty"`
	Asks    string   `json:"asks,omitempty"`
	Matched bool     `json:"matched"`
	Why     string   `json:"why,omitempty"`    // not matched: which condition does not hold
	Action  string   `json:"action,omitempty"` // matched: accept, reject or continue
	Changes []string `json:"changes,omitempty"`
}

// PolicyTest answers `rlr policy test`: one result for each direction.
func (c *Client) PolicyTest(ctx context.Context, r PolicyRequest) ([]PolicyResult, error) {
	return collect[PolicyResult](ctx, c, pathPolicyTest, r)
}
