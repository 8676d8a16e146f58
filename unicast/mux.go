package unicast

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/parley-mesh/parley/codec"
)

// Mux is a Handler that routes by topic. A pattern is a whole topic, such as
// "orders.create", or a prefix with a star at its end, such as "orders.*", or
// "*" for everything. The whole topic wins, then the longest prefix. With no
// match the answer is ErrNoListener.
//
// Methods may be called concurrently, also while messages arrive.
type Mux struct {
	mu       sync.RWMutex
	exact    map[string]Handler
	prefixes map[string]Handler // by pattern without its star
}

// NewMux returns a Mux without routes.
func NewMux() *Mux {
	return &Mux{exact: make(map[string]Handler), prefixes: make(map[string]Handler)}
}

// Handle hands m to the handler of its topic. A handler that is being removed
// may still be at work when Unroute returns.
func (x *Mux) Handle(ctx context.Context, m Message) ([]byte, error) {
	h := x.find(m.Topic)
	if h == nil {
		return nil, noListener(m.Topic)
	}
	return h.Handle(ctx, m)
}

func noListener(topic string) error { return fmt.Errorf("%w on topic %q", ErrNoListener, topic) }

// Route registers h for pattern. Errors: the pattern is not valid, begins with
// '$' (ErrReservedTopic), has a star before its end, or is registered already.
func (x *Mux) Route(pattern string, h Handler) error {
	prefix, isPrefix, err := parsePattern(pattern)
	if err != nil {
		return fmt.Errorf("unicast: route %q: %w", pattern, err)
	}
	if h == nil {
		return fmt.Errorf("unicast: route %q: no handler given", pattern)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	table := x.exact
	if isPrefix {
		table = x.prefixes
	}
	if _, taken := table[prefix]; taken {
		return fmt.Errorf("unicast: route %q: registered already", pattern)
	}
	table[prefix] = h
	return nil
}

// Unroute removes pattern and reports whether it was registered.
func (x *Mux) Unroute(pattern string) bool {
	prefix, isPrefix, err := parsePattern(pattern)
	if err != nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	table := x.exact
	if isPrefix {
		table = x.prefixes
	}
	_, found := table[prefix]
	delete(table, prefix)
	return found
}

func (x *Mux) find(topic string) Handler {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if h, ok := x.exact[topic]; ok {
		return h
	}
	var best Handler
	longest := -1
	for prefix, h := range x.prefixes {
		if len(prefix) > longest && strings.HasPrefix(topic, prefix) {
			best, longest = h, len(prefix)
		}
	}
	return best
}

func parsePattern(pattern string) (prefix string, isPrefix bool, err error) {
	if err := userTopic(pattern); err != nil {
		return "", false, err
	}
	prefix, isPrefix = strings.CutSuffix(pattern, "*")
	if strings.Contains(prefix, "*") {
		return "", false, errors.New("a star may stand at the end only")
	}
	return prefix, isPrefix, nil
}

// userTopic checks a topic that a user gave.
func userTopic(topic string) error {
	if strings.HasPrefix(topic, "$") {
		return ErrReservedTopic
	}
	return codec.ValidTopic(topic)
}
