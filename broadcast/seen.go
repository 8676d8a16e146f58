package broadcast

import "github.com/parley-mesh/parley/codec"

// window remembers the last so many ids and a value for each. The oldest is
// forgotten when it is full. It is not safe for concurrent use.
type window[V any] struct {
	vals  map[codec.ID]V
	order []codec.ID // ring of the ids, oldest at next once it is full
	next  int
	size  int
}

func newWindow[V any](size int) window[V] {
	return window[V]{vals: make(map[codec.ID]V), size: size}
}

func (w *window[V]) get(id codec.ID) (V, bool) {
	v, ok := w.vals[id]
	return v, ok
}

// put remembers id, which is not in the window.
func (w *window[V]) put(id codec.ID, v V) {
	if len(w.order) < w.size {
		w.order = append(w.order, id)
	} else {
		delete(w.vals, w.order[w.next])
		w.order[w.next] = id
		w.next = (w.next + 1) % w.size
	}
	w.vals[id] = v
}

// forget makes id unknown again. Its place in the ring stays taken, so an id
// that is forgotten and put again may be lost up to one window early.
func (w *window[V]) forget(id codec.ID) { delete(w.vals, id) }
