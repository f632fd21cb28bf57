package fsm

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func items(r *ring[int]) []int {
	out := []int{}
	r.each(func(i *int) bool { out = append(out, *i); return true })
	return out
}

// A ring is the tail of all that was appended, and its views are what it was when they were taken.
func TestRingAgainstASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r ring[int]
		var model, frozen []int
		var view *ring[int]
		total, first := 0, 0
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				for range rapid.IntRange(1, 600).Draw(t, "appends") {
					if seq := r.append(total); seq != uint64(total) {
						t.Fatalf("item %d has the number %d", total, seq)
					}
					model = append(model, total)
					total++
				}
			case 1:
				keep := rapid.IntRange(0, 700).Draw(t, "keep")
				gone := 0
				r.trim(func(_ *int, left int) bool { return left >= keep }, func(*int) { gone++ })
				model = model[gone:]
				first += gone
				if gone%ringChunk != 0 {
					t.Fatalf("%d items went, not whole chunks", gone)
				}
			case 2:
				v := r.view()
				view, frozen = &v, slices.Clone(model)
			}
			if !slices.Equal(items(&r), model) && len(model) > 0 || r.len() != len(model) {
				t.Fatalf("ring has %d items, not %d", r.len(), len(model))
			}
			if view != nil && !slices.Equal(items(view), frozen) && len(frozen) > 0 {
				t.Fatal("a view changed")
			}
			if r.at(uint64(total)) != nil || first > 0 && r.at(uint64(first-1)) != nil {
				t.Fatal("an item beyond the ends is found")
			}
		}
	})
}

func TestRingEachStops(t *testing.T) {
	var r ring[int]
	for i := range 10 {
		r.append(i)
	}
	seen := 0
	r.each(func(*int) bool { seen++; return seen < 3 })
	if seen != 3 {
		t.Errorf("%d items were visited", seen)
	}
}
