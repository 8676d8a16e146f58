package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// grace is how much longer than the context of a call a Client waits, so that
// the agent, which knows more, can say what became of it.
const grace = time.Second

// Client is an Agent at the other end of a socket. Its methods may be called
// concurrently.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a client of the agent whose socket is at path. It does not
// connect yet.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second,
	}}}
}

var _ Agent = (*Client)(nil)

// Path is the socket's path.
func (c *Client) Path() string { return c.path }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// WaitGone returns nil when the agent has given its socket free, so that another
// one can start with it, and a *Fault when ctx ends before.
func (c *Client) WaitGone(ctx context.Context) error {
	c.Close() // the agent waits for idle connections
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(c.path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return NewFault(CodeTimeout, "", "the agent has left the cluster, but still ends; its socket "+c.path+" is not free yet", ctx.Err())
		}
	}
}

// Info describes the agent.
func (c *Client) Info(ctx context.Context) (info Info, err error) {
	err = c.call(ctx, "", http.MethodGet, pathInfo, nil, nil, &info)
	return info, err
}

// Members lists the nodes.
func (c *Client) Members(ctx context.Context) (members []Member, err error) {
	err = c.call(ctx, "", http.MethodGet, pathMembers, nil, nil, &members)
	return members, err
}

// Join makes the agent contact seeds; it returns how many answered.
func (c *Client) Join(ctx context.Context, seeds []string) (n int, err error) {
	body, err := json.Marshal(seeds)
	if err != nil {
		return 0, err
	}
	err = c.call(ctx, "", http.MethodPost, pathJoin, nil, body, &n)
	return n, err
}

// Leave makes the agent leave the cluster and end.
func (c *Client) Leave(ctx context.Context) error {
	return c.call(ctx, "", http.MethodPost, pathLeave, nil, nil, nil)
}

// Tags changes the tags of the agent's node and returns all of them.
func (c *Client) Tags(ctx context.Context, change TagChange) (tags map[string]string, err error) {
	body, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, "", http.MethodPost, pathTags, nil, body, &tags)
	return tags, err
}

// Send returns nil when the other node has handled the message.
func (c *Client) Send(ctx context.Context, to Target, body []byte) error {
	return c.call(ctx, Unknown, http.MethodPost, pathSend, to.query(), body, nil)
}

// Request returns the other node's reply.
func (c *Client) Request(ctx context.Context, to Target, body []byte) (reply []byte, err error) {
	err = c.call(ctx, Unknown, http.MethodPost, pathRequest, to.query(), body, &reply)
	return reply, err
}

// Push returns nil when the message is queued at the agent.
func (c *Client) Push(ctx context.Context, to Target, body []byte) error {
	return c.call(ctx, Unknown, http.MethodPost, pathPush, to.query(), body, nil)
}

// Ping returns the time of a round trip from the agent to the other node.
func (c *Client) Ping(ctx context.Context, to Target) (rtt time.Duration, err error) {
	err = c.call(ctx, "", http.MethodPost, pathPing, to.query(), nil, &rtt)
	return rtt, err
}

// Broadcast sends to all nodes.
func (c *Client) Broadcast(ctx context.Context, topic string, reliable bool, body []byte) (r Receipt, err error) {
	q := url.Values{paramTopic: {topic}, paramReliable: {strconv.FormatBool(reliable)}}
	err = c.call(ctx, Unknown, http.MethodPost, pathBroadcast, q, body, &r)
	return r, err
}

// Events yields the changes of the cluster until ctx ends.
func (c *Client) Events(ctx context.Context) iter.Seq2[Event, error] {
	return streamOf[Event](ctx, c, pathEvents, nil)
}

// Listen yields what a listener gets, until ctx ends.
func (c *Client) Listen(ctx context.Context, opts ListenOptions) iter.Seq2[Record, error] {
	return streamOf[Record](ctx, c, pathListen, url.Values{
		paramTopic:  opts.Topics,
		paramAnswer: {strconv.FormatBool(opts.Answer)},
		paramSlots:  {strconv.Itoa(opts.Slots)},
		paramLimit:  {strconv.Itoa(opts.Limit)},
	})
}

// Answer says what became of message seq of a listener.
func (c *Client) Answer(ctx context.Context, session string, seq uint64, a Answer) error {
	q, body := url.Values{}, a.Reply
	if a.Err != "" {
		q.Set(paramError, "true")
		body = []byte(a.Err)
	}
	path := pathListen + "/" + url.PathEscape(session) + "/" + strconv.FormatUint(seq, 10)
	return c.call(ctx, "", http.MethodPost, path, q, body, nil)
}

func (t Target) query() url.Values {
	return url.Values{paramNode: {t.Node}, paramTopic: {t.Topic}, paramWait: {strconv.FormatBool(t.Wait)}}
}

// call does one call; out is nil, a *[]byte for the raw answer, or takes JSON.
// outcome is what is to be said of the message when the agent does not answer.
func (c *Client) call(ctx context.Context, outcome, method, path string, q url.Values, body []byte, out any) error {
	ctx, cancel, q := stretch(ctx, q)
	defer cancel()
	resp, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return c.unreachable(ctx, err, outcome)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.fault(resp, outcome)
	}
	switch out := out.(type) {
	case nil:
		_, err = io.Copy(io.Discard, resp.Body)
	case *[]byte:
		*out, err = io.ReadAll(resp.Body)
	default:
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	if err != nil {
		return c.unreachable(ctx, err, outcome)
	}
	return nil
}

// stretch tells the agent the time that ctx leaves it, and gives the call grace
// beyond that. A ctx that is cancelled ends the call at once.
func stretch(ctx context.Context, q url.Values) (context.Context, context.CancelFunc, url.Values) {
	deadline, ok := ctx.Deadline()
	if !ok {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, q
	}
	if q == nil {
		q = url.Values{}
	}
	q.Set(paramTimeout, max(time.Until(deadline), 0).String())
	longer, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(grace))
	stop := context.AfterFunc(ctx, func() {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cancel()
		}
	})
	return longer, func() { stop(); cancel() }, q
}

func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://parley"+path+"?"+q.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", typeRaw)
	return c.http.Do(req)
}

// unreachable says why there was no answer.
func (c *Client) unreachable(ctx context.Context, err error, outcome string) *Fault {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "dial":
		return NewFault(CodeUnreachable, notDeliveredIf(outcome), fmt.Sprintf(
			"no agent answers at %s%s: %v; start one with \"parley agent\", or name another with --socket or --agent",
			c.path, inParens(notDeliveredIf(outcome)), op.Err), err)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return NewFault(CodeUnreachable, outcome, fmt.Sprintf(
			"the agent at %s does not answer%s: it may be stopped or overloaded; look at its log, or try a longer --timeout",
			c.path, inParens(outcome)), err)
	case ctx.Err() != nil:
		return NewFault(CodeCanceled, outcome, "interrupted"+inParens(outcome), ctx.Err())
	}
	return NewFault(CodeUnreachable, outcome, fmt.Sprintf(
		"the agent at %s went away before it answered%s; \"parley agent\" starts it again", c.path, inParens(outcome)), err)
}

func notDeliveredIf(outcome string) string {
	if outcome == "" {
		return ""
	}
	return NotDelivered
}

func inParens(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// fault reads the error of an answer.
func (c *Client) fault(resp *http.Response, outcome string) *Fault {
	f := &Fault{}
	err := json.NewDecoder(io.LimitReader(resp.Body, maxJSON)).Decode(f)
	if err != nil || f.Message == "" {
		return NewFault(CodeInternal, outcome, fmt.Sprintf(
			"what listens at %s answered %s, which no parley agent says; is it one?", c.path, resp.Status), err)
	}
	// An agent of another version may know codes that this program does not.
	if row, ok := table[f.Code]; ok {
		f.Exit = row.exit
	} else if f.Exit < 1 || f.Exit > 9 {
		f.Exit = 1
	}
	return f
}

// streamOf begins a stream and yields its objects.
func streamOf[T any](ctx context.Context, c *Client, path string, q url.Values) iter.Seq2[T, error] {
	resp, err := c.do(ctx, http.MethodGet, path, q, nil)
	return func(yield func(T, error) bool) {
		var zero T
		if err != nil {
			if ctx.Err() == nil {
				yield(zero, c.unreachable(ctx, err, ""))
			}
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			yield(zero, c.fault(resp, ""))
			return
		}
		for dec := json.NewDecoder(resp.Body); ; {
			v, err := decode[T](dec)
			var f *Fault
			switch {
			case ctx.Err() != nil:
				return
			case errors.As(err, &f):
				yield(zero, f)
				return
			case err != nil:
				yield(zero, NewFault(CodeUnreachable, "", fmt.Sprintf(
					"the agent at %s ended; \"parley agent\" starts it again", c.path), err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// decode reads the next object of a stream; a *Fault if it is the stream's last
// word.
func decode[T any](dec *json.Decoder) (v T, err error) {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return v, err
	}
	if bytes.HasPrefix(raw, []byte(`{"fault":`)) {
		var end streamEnd
		if err := json.Unmarshal(raw, &end); err == nil && end.Fault != nil {
			return v, end.Fault
		}
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, NewFault(CodeInternal, "", fmt.Sprintf("the agent said something odd: %v; \"parley info\" tells its version", err), err)
	}
	return v, nil
}
