package vppagent

import (
	"context"
	"fmt"
	"strings"

	"go.fd.io/govpp/binapi/ip"
)

// setTable creates or deletes a FIB table. The name marks it as ours: VPP's tables have no tags.
func setTable(ctx context.Context, s *session, t table, name string, add bool) error {
	err := s.call(ctx, &ip.IPTableAddDel{
		IsAdd: add, Table: ip.IPTable{TableID: t.id, IsIP6: t.ip6, Name: name},
	}, new(ip.IPTableAddDelReply))
	if err != nil {
		return fmt.Errorf("table %d: %w", t.id, err)
	}
	return nil
}

// tableName is what a configured table is called in VPP.
func (c *Config) tableName(t *Table) string {
	name := c.tagPrefix() + t.Name
	return name[:min(len(name), maxTag)]
}

// planTables returns the tables to make, with names, and those of ours to delete.
func planTables(cfg *Config, w *world) (missing map[table]string, extra []table) {
	missing = make(map[table]string)
	wanted := make(map[table]bool)
	for i := range cfg.Tables {
		for _, ip6 := range []bool{false, true} {
			t := table{cfg.Tables[i].ID, ip6}
			wanted[t] = true
			if _, there := w.tables[t]; !there && t.id != 0 {
				missing[t] = cfg.tableName(&cfg.Tables[i])
			}
		}
	}
	for t, name := range w.tables {
		if strings.HasPrefix(name, cfg.tagPrefix()) && !wanted[t] {
			extra = append(extra, t)
		}
	}
	return missing, extra
}
