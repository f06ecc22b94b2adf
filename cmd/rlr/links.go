package main

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/sirupsen/logrus"

	"rlr/internal/config"
	"rlr/wg"
)

// links are the WireGuard links of a router, one stage each.
type links struct {
	stages *stages
	log    *logrus.Entry

	mu    sync.Mutex
	order []string
	byIf  map[string]*runningLink
}

type runningLink struct {
	cfg   wg.Config
	link  *wg.Link
	stage *stage
}

func newLinks(s *stages, log *logrus.Entry) *links {
	return &links{stages: s, log: log, byIf: make(map[string]*runningLink)}
}

// apply makes the running links those of a configuration. A link whose settings did not change is not touched. Every new
// link is made before a running one is stopped, so that an error leaves all as it was.
func (l *links) apply(cfg *config.Config, dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := make(map[string]wg.Config)
	made := make(map[string]*wg.Link)
	var order []string
	for _, i := range cfg.Interfaces {
		if i.WireGuard == nil {
			continue
		}
		c := linkConfig(cfg, i, dir)
		wanted[i.Name] = c
		order = append(order, i.Name)
		if old := l.byIf[i.Name]; old != nil && reflect.DeepEqual(old.cfg, c) {
			continue
		}
		full := c
		full.Log = l.log.WithField("interface", i.Name)
		link, err := wg.New(full)
		if err != nil {
			return fmt.Errorf("interface %s: %w", i.Name, err)
		}
		made[i.Name] = link
	}
	for name, old := range l.byIf {
		if c, ok := wanted[name]; !ok || !reflect.DeepEqual(old.cfg, c) {
			if err := l.stages.stop(old.stage); err != nil {
				l.log.WithField("interface", name).WithError(err).Warn("link stopped with an error")
			}
			delete(l.byIf, name)
		}
	}
	for _, name := range order {
		if link := made[name]; link != nil {
			st := l.stages.start("wireguard "+name, link.Run)
			l.byIf[name] = &runningLink{cfg: wanted[name], link: link, stage: st}
		}
	}
	l.order = order
	return nil
}

// each visits the running links in the configuration's order.
func (l *links) each(visit func(name string, link *wg.Link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range l.order {
		if r := l.byIf[name]; r != nil {
			visit(name, r.link)
		}
	}
}
