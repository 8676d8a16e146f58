package broadcast

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/parley-mesh/parley/codec"
)

// work runs the handler, message after message, until the queue is closed.
func (b *Broadcaster) work() {
	for {
		j, ok := b.queue.take()
		if !ok {
			return
		}
		if b.begins(j) {
			b.handle(j)
		}
	}
}

// handle runs the handler on one message and tells its sender, or the log.
func (b *Broadcaster) handle(j *job) {
	ctx := b.ctx
	if j.ctx != nil {
		withCause, cancel := context.WithCancelCause(j.ctx)
		defer cancel(nil)
		defer context.AfterFunc(b.ctx, func() { cancel(ErrClosed) })()
		ctx = withCause
	}
	err := b.call(ctx, j.msg)
	b.count.handled.Add(1)
	if err != nil {
		b.count.handlerErrors.Add(1)
	}
	if j.out != nil {
		j.out.err = err
		close(j.out.done)
	}
	if _, panicked := err.(*refusal); err != nil && j.ctx == nil && !panicked { // a panic was logged with its stack
		b.errorLog.do(func(missed int) {
			b.log.Warn("broadcast handler failed", "peer", j.msg.From, "topic", j.msg.Topic, "err", err, "not_logged", missed)
		})
	}
}

// call runs the handler and turns a panic into an error.
func (b *Broadcaster) call(ctx context.Context, m Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			b.count.handlerPanics.Add(1)
			b.log.Error("broadcast handler panicked", "peer", m.From, "topic", m.Topic,
				"err", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &refusal{codec.StatusHandlerPanic, fmt.Sprintf("panic: %v", p)}
		}
	}()
	return b.handler.HandleBroadcast(ctx, m)
}
