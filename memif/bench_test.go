package memif

import (
	"runtime"
	"testing"
)

// BenchmarkBatch sends frames from slave to master in batches of 64; ns/op is per frame.
func BenchmarkBatch(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"64B", 64}, {"1500B", 1500}} {
		b.Run(size.name, func(b *testing.B) {
			master, slave := pair(b, Config{})
			b.SetBytes(int64(size.bytes))
			batch := make([][]byte, 64)
			for k := range batch {
				batch[k] = make([]byte, size.bytes)
			}
			count := (b.N + 63) / 64 * 64
			b.ResetTimer()
			go func() {
				for left := count; left > 0; {
					n, err := slave.WriteBatch(0, batch[:min(left, len(batch))])
					if err != nil {
						return
					}
					if n == 0 {
						runtime.Gosched()
					}
					left -= n
				}
			}()
			err := newReceiver(64, 2048).receive(master.Interface, 0, count, func(int, []byte) bool { return true })
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			s := slave.Stats()
			b.ReportMetric(float64(s.Interrupts)/float64(count), "interrupts/frame")
			b.ReportMetric(float64(count)/b.Elapsed().Seconds()/1e6, "Mpps")
		})
	}
}
