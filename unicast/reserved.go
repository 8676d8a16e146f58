package unicast

import (
	"context"
	"errors"
	"fmt"

	"github.com/parley-mesh/parley/codec"
)

// ReservedFunc handles messages to a reserved topic, as a Handler does others.
// body is its own. An error with a method ReplyStatus() codec.Status is answered
// with that status, if it is a failure that package codec knows.
type ReservedFunc = func(ctx context.Context, from string, body []byte) ([]byte, error)

// Reserve routes topic, which must begin with '$', past the Handler to fn. A nil
// fn ends the reservation; one that is at work is not waited for. Errors: an
// invalid topic, or one that is reserved already.
func (m *Messenger) Reserve(topic string, fn func(ctx context.Context, from string, body []byte) ([]byte, error)) error {
	if err := checkReserved(topic); err != nil {
		return fmt.Errorf("unicast: reserve %q: %w", topic, err)
	}
	m.reservedMu.Lock()
	defer m.reservedMu.Unlock()
	if fn == nil {
		delete(m.reserved, topic)
		return nil
	}
	if m.reserved[topic] != nil {
		return fmt.Errorf("unicast: reserve %q: reserved already", topic)
	}
	m.reserved[topic] = fn
	return nil
}

// SendReserved is Send to a reserved topic. Its body may be 1 KiB larger than
// Config.MaxMessage, up to 16 MiB in all.
func (m *Messenger) SendReserved(ctx context.Context, node, topic string, body []byte) error {
	if err := checkReserved(topic); err != nil {
		_, err := m.account(codec.KindSend, node, body, nil, notDelivered("", err))
		return err
	}
	_, err := m.callUnchecked(ctx, codec.KindSend, node, topic, body, m.cfg.maxReserved(), false)
	return err
}

func checkReserved(topic string) error {
	if !reservedTopic(topic) {
		return errors.New("a reserved topic begins with '$'")
	}
	return codec.ValidTopic(topic)
}
