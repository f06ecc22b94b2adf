package rootless

import "time"

// backoff says how long to wait before VPP is started again. A death at the start counts in full; a death in use counts a
// tenth, so that a VPP that was killed comes back at once, ten times in a row, and one that some route crashes does not spin
// for ever either.
type backoff struct {
	first, longest time.Duration
	early          time.Duration // it was of use for less than this: a death at the start
	stable         time.Duration // it was of use for more than this: all is forgiven

	score int // tenths
}

// next counts a death after VPP has been of use for lived, 0 when it never was.
func (b *backoff) next(lived time.Duration) time.Duration {
	switch {
	case lived >= b.stable:
		b.score = 0
	case lived < b.early:
		b.score += 10
	default:
		b.score++
	}
	pause := b.first
	for range max(b.score-1, 0) / 10 { // the first death has not been paid for yet
		if pause *= 2; pause >= b.longest {
			return b.longest
		}
	}
	return min(pause, b.longest)
}
