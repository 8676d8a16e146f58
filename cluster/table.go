package cluster

import (
	"slices"
	"strings"
	"time"
)

// table is every instance that is known. Per name it keeps the live instances
// and the one that is visible. Node.mu guards it.
type table struct {
	own       string // key of this node's instance, which is never forgotten
	max       int    // of live instances, and of names listed
	instances map[string]*record
	names     map[string][]*record // the visible one first; observers are not in here
	live      int                  // instances alive, observers included
	observers int                  // instances of observers
	digest    uint64               // of the live instances
}

func newTable(own string, maximum int) *table {
	return &table{own: own, max: maximum, instances: make(map[string]*record), names: make(map[string][]*record)}
}

// visible returns what name stands for, or nil.
func (t *table) visible(name string) *record {
	if records := t.names[name]; len(records) > 0 {
		return records[0]
	}
	return nil
}

// full reports whether no further instance can be taken.
func (t *table) full() bool { return t.live >= t.max }

// put inserts r or replaces the record of the same instance, and returns what
// its name stood for before and stands for now; nil means nothing.
func (t *table) put(r *record) (before, after *record) {
	before = t.visible(r.member.Name)
	t.unlink(t.instances[r.key])
	t.instances[r.key] = r
	if r.alive() {
		t.live++
		t.digest ^= r.digest()
	}
	if r.member.Observer {
		t.observers++
	} else {
		t.names[r.member.Name] = append(t.names[r.member.Name], r)
	}
	t.settle(r.member.Name)
	if before == nil {
		t.evict()
	}
	return before, t.visible(r.member.Name)
}

// remove forgets an instance.
func (t *table) remove(key string) (before, after *record) {
	r := t.instances[key]
	if r == nil {
		return nil, nil
	}
	before = t.visible(r.member.Name)
	t.unlink(r)
	t.settle(r.member.Name)
	return before, t.visible(r.member.Name)
}

// unlink takes r, which may be nil, out of all books; settle must follow.
func (t *table) unlink(r *record) {
	if r == nil {
		return
	}
	delete(t.instances, r.key)
	if r.alive() {
		t.live--
		t.digest ^= r.digest()
	}
	if r.member.Observer {
		t.observers--
		return
	}
	records := t.names[r.member.Name]
	t.names[r.member.Name] = slices.DeleteFunc(records, func(o *record) bool { return o == r })
}

// settle puts the visible instance of name first and forgets those that can
// never be visible again: alive beats departed, then the rank decides.
func (t *table) settle(name string) {
	records := t.names[name]
	if len(records) == 0 {
		delete(t.names, name)
		return
	}
	slices.SortFunc(records, func(a, b *record) int {
		switch {
		case a.alive() != b.alive():
			if a.alive() {
				return -1
			}
			return 1
		case a.outranks(b):
			return -1
		}
		return 1
	})
	kept := records[:1]
	for _, r := range records[1:] {
		if r.alive() || r.key == t.own {
			kept = append(kept, r)
		} else {
			delete(t.instances, r.key)
		}
	}
	clear(records[len(kept):])
	t.names[name] = kept
}

// expire forgets the departed whose time is over.
func (t *table) expire(now time.Time) {
	for key, r := range t.instances {
		if key == t.own {
			continue
		}
		retention := LeftRetention
		switch r.member.Status {
		case Alive:
			continue
		case Failed:
			retention = FailedRetention
		}
		if now.Sub(r.member.Since) > retention {
			t.remove(key)
		}
	}
}

// evict keeps the number of names within the bound: those that left go before
// those that failed, the longest departed first.
func (t *table) evict() {
	for len(t.names) > t.max {
		var victim *record
		for _, records := range t.names {
			r := records[0]
			if r.alive() || r.key == t.own {
				continue
			}
			if victim == nil || departedBefore(r, victim) {
				victim = r
			}
		}
		if victim == nil {
			return
		}
		t.remove(victim.key)
	}
}

func departedBefore(a, b *record) bool {
	if a.member.Status != b.member.Status {
		return a.member.Status == Left
	}
	return a.member.Since.Before(b.member.Since)
}

// each calls f for every visible member until it returns false.
func (t *table) each(f func(*record) bool) {
	for _, records := range t.names {
		if !f(records[0]) {
			return
		}
	}
}

// sorted returns the visible members by name.
func (t *table) sorted() []*record {
	out := make([]*record, 0, len(t.names))
	t.each(func(r *record) bool { out = append(out, r); return true })
	slices.SortFunc(out, func(a, b *record) int { return strings.Compare(a.member.Name, b.member.Name) })
	return out
}
