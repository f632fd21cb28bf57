package fsm

const ringChunk = 256

// ring is an append-only sequence that forgets its oldest items, a chunk at a time. A view taken of it stays as it
// was: later appends write only to places the view does not reach.
type ring[T any] struct {
	chunks []*[ringChunk]T
	first  uint64 // sequence number of the oldest item
	next   uint64 // sequence number of the item to come
}

func (r *ring[T]) append(item T) uint64 {
	at := r.next - r.first
	if at == uint64(len(r.chunks))*ringChunk {
		r.chunks = append(r.chunks, new([ringChunk]T))
	}
	r.chunks[at/ringChunk][at%ringChunk] = item
	r.next++
	return r.next - 1
}

func (r *ring[T]) len() int { return int(r.next - r.first) }

func (r *ring[T]) at(seq uint64) *T {
	if seq < r.first || seq >= r.next {
		return nil
	}
	at := seq - r.first
	return &r.chunks[at/ringChunk][at%ringChunk]
}

// trim forgets whole chunks from the oldest on while old says that their newest item may go; gone gets every item.
func (r *ring[T]) trim(old func(newest *T, left int) bool, gone func(*T)) {
	for r.len() > ringChunk {
		c := r.chunks[0]
		if !old(&c[ringChunk-1], r.len()-ringChunk) {
			return
		}
		if gone != nil {
			for i := range c {
				gone(&c[i])
			}
		}
		r.chunks = r.chunks[1:]
		r.first += ringChunk
	}
}

// view gives a copy that later changes of r do not reach.
func (r *ring[T]) view() ring[T] {
	v := *r
	v.chunks = append([]*[ringChunk]T(nil), r.chunks...)
	return v
}

// each visits the items, oldest first, until fn returns false.
func (r *ring[T]) each(fn func(*T) bool) {
	for seq := r.first; seq < r.next; seq++ {
		if !fn(r.at(seq)) {
			return
		}
	}
}
