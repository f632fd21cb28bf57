package fsm

import (
	"encoding/json"
	"fmt"
	"time"
)

// Time is an instant in Unix milliseconds, stamped by whoever proposed the command. It is for people and for
// durations on one machine's clock; nothing is decided by comparing the times of two machines, but for the expiry of join
// tokens. In JSON it is RFC 3339 in UTC, the zero Time is null.
type Time int64

// Now is the local clock's Time; only proposers call it, Apply never does.
func Now() Time { return Time(time.Now().UnixMilli()) }

// Std gives the time as a time.Time in UTC.
func (t Time) Std() time.Time { return time.UnixMilli(int64(t)).UTC() }

// MarshalJSON writes RFC 3339 with milliseconds.
func (t Time) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return []byte(t.Std().Format(`"2006-01-02T15:04:05.000Z07:00"`)), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Time) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*t = 0
		return nil
	}
	var s time.Time
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("time: %w", err)
	}
	*t = Time(s.UnixMilli())
	return nil
}

// Millis is a duration in milliseconds; in JSON a Go duration string such as "30s".
type Millis int64

// Longest is the longest duration a setting or a spec may have, 30 days: nobody means more, and sums of such durations
// are far from overflowing.
const Longest = Millis(30 * 24 * 60 * 60 * 1000)

// Std gives the duration as a time.Duration.
func (m Millis) Std() time.Duration { return time.Duration(m) * time.Millisecond }

// MarshalJSON writes a Go duration string.
func (m Millis) MarshalJSON() ([]byte, error) { return json.Marshal(m.Std().String()) }

// UnmarshalJSON reads a Go duration string.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration: write it as a string such as \"30s\": %w", err)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("duration: %w", err)
	}
	*m = Millis(d.Milliseconds())
	return nil
}
