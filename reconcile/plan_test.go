package reconcile

import (
	"testing"
	"time"
)

// Any legal setting gives a back-off that neither overflows nor goes down again.
func TestBackOffNeverShrinks(t *testing.T) {
	for _, first := range []time.Duration{time.Millisecond, 500 * time.Millisecond, time.Hour, 30 * 24 * time.Hour} {
		before := time.Duration(1)
		for attempt := 1; attempt <= 100; attempt++ {
			wait := backOff(first, attempt)
			if wait < before || wait > time.Minute {
				t.Errorf("%s, attempt %d: %s after %s", first, attempt, wait, before)
			}
			before = wait
		}
	}
	if got := backOff(500*time.Millisecond, 3); got != 2*time.Second {
		t.Errorf("the third attempt's is %s", got)
	}
}
