package bgp

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

func TestAdhoc(t *testing.T) {
	r1, r2, _ := manyLinks(t, 20)
	start(t, r1, r2)
	r1.established()
	r2.established()
	r1.originate("10.1.0.0/24")
	time.Sleep(time.Second)
	before := runtime.NumGoroutine()
	for round := range 3 {
		for i := range 20 {
			if err := r1.Reset(fmt.Sprint("n", i), ResetHard); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(11 * time.Second)
		r1.established()
		r2.established()
		fmt.Println(round, before, runtime.NumGoroutine())
	}
}
