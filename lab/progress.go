package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// progress tells what a lab does: a line for each thing that is finished and, on a terminal, a last line with a clock
// that says what it waits for.
type progress struct {
	screen Screen
	began  time.Time
	stop   chan struct{}
	ticker sync.WaitGroup

	mu     sync.Mutex // guards below, and the screen
	active []string
	closed bool
}

func newProgress(s Screen) *progress {
	if s.W == nil {
		s = Screen{W: io.Discard}
	}
	p := &progress{screen: s, began: time.Now(), stop: make(chan struct{})}
	if s.Terminal {
		p.ticker.Go(p.tick)
	}
	return p
}

func (p *progress) tick() {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.statusLocked()
			p.mu.Unlock()
		}
	}
}

// close removes the clock. It may be called again.
func (p *progress) close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	p.mu.Unlock()
	close(p.stop)
	p.ticker.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
}

func (p *progress) clearLocked() {
	if p.screen.Terminal {
		fmt.Fprint(p.screen.W, "\r\x1b[K")
	}
}

func (p *progress) statusLocked() {
	if p.screen.Terminal && !p.closed && len(p.active) > 0 {
		fmt.Fprintf(p.screen.W, "\r\x1b[K%s  ... %.60s", p.clock(), strings.Join(p.active, ", ")) // a line that wraps could not be taken back
	}
}

func (p *progress) clock() string { return fmt.Sprintf("%6.1f s", time.Since(p.began).Seconds()) }

// say prints a line.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	fmt.Fprintf(p.screen.W, "%s  %s\n", p.clock(), fmt.Sprintf(format, args...))
	p.statusLocked()
}

// begin adds something to wait for; the returned function takes it away and, unless empty, prints a line.
func (p *progress) begin(what string) func(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active = append(p.active, what)
	p.statusLocked()
	return func(line string) {
		p.mu.Lock()
		if i := slices.Index(p.active, what); i >= 0 {
			p.active = slices.Delete(p.active, i, i+1)
		}
		p.mu.Unlock()
		if line != "" {
			p.say("%s", line)
		}
	}
}

func (p *progress) verdict(c Check) string {
	detail, _, _ := strings.Cut(c.Detail, "\n")
	return fmt.Sprintf("%s  %s: %s", wordOf(c, p.screen.Colour), c.Name, detail)
}

// wordOf is the verdict in a word.
func wordOf(c Check, colour bool) string {
	if c.Skipped {
		return "skip"
	}
	return word(c.OK, colour)
}

// word is ok or FAIL, of one width.
func word(ok, colour bool) string {
	text, sgr := "ok  ", "32"
	if !ok {
		text, sgr = "FAIL", "31"
	}
	if colour {
		return "\x1b[" + sgr + "m" + text + "\x1b[0m"
	}
	return text
}

// metricTexts say what metrics mean and print their values for people, in the order of the table.
var metricTexts = []struct {
	name, label string
	text        func(float64) string
}{
	{"converge_ms", "start to all sessions and routes", seconds},
	{"ping_rtt_ms", "round trip of a ping", func(v float64) string { return fmt.Sprintf("%.2f ms", v) }},
	{"cpu_percent", "CPU of an idle router", percent},
	{"rss_bytes", "memory of an idle router", megabytes},
	{"router_pss_bytes", "its share of memory (PSS)", megabytes},
	{"vpp_cpu_percent", "CPU of its VPP", percent},
	{"vpp_pss_bytes", "PSS of its VPP", megabytes},
	{"helpers_cpu_percent", "CPU of its helpers", percent},
	{"helpers_pss_bytes", "PSS of its helpers", megabytes},
	{"total_cpu_percent", "CPU of all of these", percent},
	{"total_pss_bytes", "PSS of all of these", megabytes},
	{"roa_flip_ms", "change of a ROA to its route, worst", seconds},
	{"reconnect_median_ms", "reset to Established, median", seconds},
	{"reconnect_worst_ms", "reset to Established, worst", seconds},
	{"helper_back_ms", "death of a helper to sessions, worst", seconds},
	{"vpp_back_median_ms", "death of VPP to its routes, median", seconds},
	{"vpp_back_worst_ms", "death of VPP to its routes, worst", seconds},
	{"sessions_back_median_ms", "death of VPP to sessions, median", seconds},
	{"sessions_back_worst_ms", "death of VPP to sessions, worst", seconds},
	{"ping_back_median_ms", "death of VPP to pings, median", seconds},
	{"ping_back_worst_ms", "death of VPP to pings, worst", seconds},
	{"vpp_starts", "starts of a VPP that always dies", func(v float64) string { return fmt.Sprintf("%.0f in %s", v, crashWindow) }},
	{"route_latency_median_ms", "UPDATE to the dataplane, median", milliseconds},
	{"route_latency_p99_ms", "UPDATE to the dataplane, 99 %", milliseconds},
	{"router_back_ms", "router's return to sessions, routes", seconds},
	{"wireguard_outage_ms", "WireGuard's outage meanwhile", seconds},
	{"many_routes", "routes at the death of VPP", func(v float64) string { return fmt.Sprintf("%.0f", v) }},
	{"many_learned_ms", "learning them from a neighbour", seconds},
	{"many_back_ms", "death of VPP to all in the new one", seconds},
	{"many_vpp_rss_bytes", "memory of VPP with them", megabytes},
	{"many_rss_bytes", "memory of the router with them", megabytes},
	{"failover_ms", "cut to the route on the other tunnel", seconds},
	{"outage_ms", "outage of the ping by the cut", seconds},
	{"outage_median_ms", "outage of the ping by a cut, median", milliseconds},
	{"outage_worst_ms", "outage of the ping by a cut, worst", milliseconds},
	{"way_back_worst_ms", "and on the way back, worst", milliseconds},
	{"ping_lost", "pings lost in the outage", func(v float64) string { return fmt.Sprintf("%.0f", v) }},
	{"heal_ms", "healing to the first state again", seconds},
	{"lab_ms", "the whole lab", seconds},
}

func megabytes(v float64) string { return fmt.Sprintf("%.1f MB", v/1e6) }

func percent(v float64) string { return fmt.Sprintf("%.2f %% of a core", v) }

func milliseconds(ms float64) string { return fmt.Sprintf("%.2f ms", ms) }

func seconds(ms float64) string { return fmt.Sprintf("%.1f s (%.0f ms)", ms/1000, ms) }

// printResult prints the table, or the JSON object.
func printResult(opt Options, r Result, took time.Duration, pl *place) error {
	if opt.Out == nil {
		return nil
	}
	if opt.JSON {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
		_, err = opt.Out.Write(append(b, '\n'))
		return err
	}
	_, err := io.WriteString(opt.Out, tableText(r, took, opt.Progress.Colour, filepath.Join(pl.dir, "log")))
	return err
}

func tableText(r Result, took time.Duration, colour bool, logs string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s on the %s dataplane\n\n", r.Scenario, r.Dataplane)
	width, passed, skipped := 0, 0, 0
	for _, c := range r.Checks {
		width = max(width, utf8.RuneCountInString(c.Name))
	}
	for _, c := range r.Checks {
		switch {
		case c.Skipped:
			skipped++
		case c.OK:
			passed++
		}
		detail := strings.ReplaceAll(c.Detail, "\n", "\n"+strings.Repeat(" ", width+8))
		fmt.Fprintf(&b, "%s  %-*s  %s\n", wordOf(c, colour), width, c.Name, detail)
	}
	b.WriteString("\n")
	labels := 0
	for _, m := range metricTexts {
		labels = max(labels, utf8.RuneCountInString(m.label))
	}
	for _, m := range metricTexts {
		if v, ok := r.Metrics[m.name]; ok {
			fmt.Fprintf(&b, "      %-*s  %s\n", labels, m.label, m.text(v))
		}
	}
	fmt.Fprintf(&b, "\n%s  %d of %d checks passed", word(r.OK, colour), passed, len(r.Checks))
	if skipped > 0 {
		fmt.Fprintf(&b, ", %d skipped", skipped)
	}
	fmt.Fprintf(&b, " in %.1f s\n", took.Seconds())
	if !r.OK {
		fmt.Fprintf(&b, "      the routers' logs are in %s\n", logs)
	}
	return b.String()
}
