package errs

import "strings"

// Nearest gives the known name that a typing error may have meant, for a hint: at most a third of its letters away,
// whatever the case; "" when there is none.
func Nearest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	best, at := "", 0
	for _, k := range known {
		d := distance(strings.ToLower(name), strings.ToLower(k))
		if d <= max(1, len(k)/3) && (best == "" || d < at) {
			best, at = k, d
		}
	}
	return best
}

// distance is the number of bytes to insert, remove or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
