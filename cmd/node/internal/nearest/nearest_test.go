package nearest

import "testing"

func TestWord(t *testing.T) {
	nodes := []string{"node1", "node2", "billing-1"}
	for _, c := range []struct{ word, want string }{
		{"node2", "node2"},
		{"nod2", "node2"},
		{"noed2", "node2"},
		{"NODE1", "node1"},
		{"node3", "node1"}, // one replaced: the first of equals
		{"biling-1", "billing-1"},
		{"bilin-1", "billing-1"},
		{"mars", ""},
		{"", ""},
		{"n", ""},
		{"completely-different-thing", ""},
	} {
		if got := Word(c.word, nodes); got != c.want {
			t.Errorf("Word(%q) = %q, want %q", c.word, got, c.want)
		}
	}
	if got := Word("x", nil); got != "" {
		t.Errorf("Word with no candidates = %q", got)
	}
}
