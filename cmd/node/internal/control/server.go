package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What the headers and queries are called, here and in client.go.
const (
	paramNode     = "node"
	paramTopic    = "topic"
	paramTimeout  = "timeout" // a Go duration
	paramWait     = "wait"
	paramReliable = "reliable"
	paramAnswer   = "answer"
	paramSlots    = "slots"
	paramLimit    = "limit"
	paramError    = "error"

	pathInfo      = "/v1/info"
	pathMembers   = "/v1/members"
	pathJoin      = "/v1/join"
	pathLeave     = "/v1/leave"
	pathTags      = "/v1/tags"
	pathSend      = "/v1/send"
	pathRequest   = "/v1/request"
	pathPush      = "/v1/push"
	pathPing      = "/v1/ping"
	pathBroadcast = "/v1/broadcast"
	pathEvents    = "/v1/events"
	pathListen    = "/v1/listen"

	typeJSON   = "application/json"
	typeStream = "application/x-ndjson"
	typeRaw    = "application/octet-stream"

	maxJSON   = 64 << 10        // bytes of a JSON body
	maxErr    = 4 << 10         // bytes of an Answer's error
	callTime  = 5 * time.Second // for calls that name no timeout
	closeTime = 1 * time.Second // that Shutdown gives calls under way
)

// Server answers calls on a Socket for an Agent.
type Server struct {
	agent  Agent
	socket *Socket
	http   *http.Server
	stop   context.CancelFunc // ends what is under way
	done   chan struct{}      // closed when serving has ended
}

// Serve starts answering. The Server owns the socket from now on.
func Serve(s *Socket, a Agent, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	srv := &Server{agent: a, socket: s, stop: cancel, done: make(chan struct{})}
	srv.http = &http.Server{
		Handler:           srv.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() { // ended by Close
		defer close(srv.done)
		if err := srv.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("control socket failed", "socket", s.Path, "err", err)
		}
	}()
	return srv
}

// Close lets calls that have their answer write it, ends streams, and takes the
// socket away.
func (s *Server) Close() error {
	timer := time.AfterFunc(closeTime/2, s.stop)
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.stop()
	<-s.done
	return errors.Join(err, s.socket.Close())
}

// routes is the table of handlers: a method, a path, and what answers.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + pathInfo:                         s.info,
		"GET " + pathMembers:                      s.members,
		"POST " + pathJoin:                        s.join,
		"POST " + pathLeave:                       s.leave,
		"POST " + pathTags:                        s.tags,
		"POST " + pathSend:                        s.send,
		"POST " + pathRequest:                     s.request,
		"POST " + pathPush:                        s.push,
		"POST " + pathPing:                        s.ping,
		"POST " + pathBroadcast:                   s.broadcast,
		"GET " + pathEvents:                       s.events,
		"GET " + pathListen:                       s.listen,
		"POST " + pathListen + "/{session}/{seq}": s.answer,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				writeFault(w, err)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeFault(w, NewFault(CodeUsage, "", fmt.Sprintf(
			"the agent has no %s %s: is it of another version? \"parley version\" and \"parley info\" tell", r.Method, r.URL.Path), nil))
	})
	return mux
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.agent.Info(r.Context())
	return respond(w, info, err)
}

func (s *Server) members(w http.ResponseWriter, r *http.Request) error {
	members, err := s.agent.Members(r.Context())
	return respond(w, members, err)
}

func (s *Server) join(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel, err := callContext(r)
	if err != nil {
		return err
	}
	defer cancel()
	var seeds []string
	if err := readJSON(w, r, &seeds); err != nil {
		return err
	}
	n, err := s.agent.Join(ctx, seeds)
	return respond(w, n, err)
}

func (s *Server) leave(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel, err := callContext(r)
	if err != nil {
		return err
	}
	defer cancel()
	return respond(w, struct{}{}, s.agent.Leave(ctx))
}

func (s *Server) tags(w http.ResponseWriter, r *http.Request) error {
	var change TagChange
	if err := readJSON(w, r, &change); err != nil {
		return err
	}
	tags, err := s.agent.Tags(r.Context(), change)
	return respond(w, tags, err)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request) error {
	return s.message(w, r, func(ctx context.Context, to Target, body []byte) error {
		return respond(w, struct{}{}, s.agent.Send(ctx, to, body))
	})
}

func (s *Server) request(w http.ResponseWriter, r *http.Request) error {
	return s.message(w, r, func(ctx context.Context, to Target, body []byte) error {
		reply, err := s.agent.Request(ctx, to, body)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", typeRaw)
		w.Header().Set("Content-Length", strconv.Itoa(len(reply)))
		_, _ = w.Write(reply) // the caller is gone
		return nil
	})
}

func (s *Server) push(w http.ResponseWriter, r *http.Request) error {
	return s.message(w, r, func(ctx context.Context, to Target, body []byte) error {
		return respond(w, struct{}{}, s.agent.Push(ctx, to, body))
	})
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	return s.message(w, r, func(ctx context.Context, to Target, _ []byte) error {
		rtt, err := s.agent.Ping(ctx, to)
		return respond(w, rtt, err)
	})
}

func (s *Server) broadcast(w http.ResponseWriter, r *http.Request) error {
	return s.message(w, r, func(ctx context.Context, to Target, body []byte) error {
		reliable, err := boolParam(r, paramReliable)
		if err != nil {
			return err
		}
		receipt, err := s.agent.Broadcast(ctx, to.Topic, reliable, body)
		return respond(w, receipt, err)
	})
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	events := s.agent.Events(r.Context())
	st := newStream(w)
	for e, err := range events {
		if err != nil {
			st.fail(err)
			return nil
		}
		if st.write(e) != nil {
			return nil // the caller is gone
		}
	}
	return nil
}

func (s *Server) listen(w http.ResponseWriter, r *http.Request) error {
	opts := ListenOptions{Topics: r.URL.Query()[paramTopic]}
	var err error
	if opts.Answer, err = boolParam(r, paramAnswer); err != nil {
		return err
	}
	for name, v := range map[string]*int{paramSlots: &opts.Slots, paramLimit: &opts.Limit} {
		if *v, err = intParam(r, name); err != nil {
			return err
		}
	}
	st := newStream(w)
	for rec, err := range s.agent.Listen(r.Context(), opts) {
		if err != nil {
			st.fail(err)
			return nil
		}
		if st.write(rec) != nil {
			return nil
		}
	}
	return nil
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) error {
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
	if err != nil {
		return usage("the number of the message answered is %q", r.PathValue("seq"))
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	a := Answer{Reply: body}
	if failed, err := boolParam(r, paramError); err != nil {
		return err
	} else if failed {
		a = Answer{Err: string(body[:min(len(body), maxErr)])}
		if a.Err == "" {
			a.Err = "failed and did not say why"
		}
	}
	return respond(w, struct{}{}, s.agent.Answer(r.Context(), r.PathValue("session"), seq, a))
}

// message reads what all calls with a message have in common.
func (s *Server) message(w http.ResponseWriter, r *http.Request, do func(context.Context, Target, []byte) error) error {
	ctx, cancel, err := callContext(r)
	if err != nil {
		return err
	}
	defer cancel()
	q := r.URL.Query()
	to := Target{Node: q.Get(paramNode), Topic: q.Get(paramTopic)}
	if to.Wait, err = boolParam(r, paramWait); err != nil {
		return err
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	return do(ctx, to, body)
}

// callContext ends when the caller goes away, or with the time that it named.
func callContext(r *http.Request) (context.Context, context.CancelFunc, error) {
	d := callTime
	if v := r.URL.Query().Get(paramTimeout); v != "" {
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			return nil, nil, usage("the timeout is %q; write 500ms or 5s", v)
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	return ctx, cancel, nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxMessage))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		size := "more"
		if r.ContentLength > 0 {
			size = strconv.FormatInt(r.ContentLength, 10) + " bytes"
		}
		return nil, TooLarge("the body", size)
	}
	if err != nil {
		return nil, usage("the body could not be read: %v", err)
	}
	return body, nil
}

// TooLarge is the Fault for a body over MaxMessage; size in words.
func TooLarge(what, size string) *Fault {
	return NewFault(CodeTooLarge, NotDelivered, fmt.Sprintf(
		"%s is too large (%s): %s, and the limit is %d bytes; send it in parts, or send where to fetch it",
		what, NotDelivered, size, MaxMessage), nil)
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return usage("the call's JSON could not be read: %v", err)
	}
	return nil
}

func boolParam(r *http.Request, name string) (bool, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, usage("%s is %q, not true or false", name, v)
	}
	return b, nil
}

func intParam(r *http.Request, name string) (int, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, usage("%s is %q, not a number from 0", name, v)
	}
	return n, nil
}

func usage(format string, args ...any) *Fault {
	return NewFault(CodeUsage, "", fmt.Sprintf(format, args...), nil)
}

// respond writes v, unless err is to be written.
func respond(w http.ResponseWriter, v any, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeJSON)
	_ = json.NewEncoder(w).Encode(v) // an error means that the caller is gone
	return nil
}

func writeFault(w http.ResponseWriter, err error) {
	f := asFault(err)
	w.Header().Set("Content-Type", typeJSON)
	w.WriteHeader(httpStatus(f.Code))
	_ = json.NewEncoder(w).Encode(f)
}

func asFault(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return NewFault(CodeInternal, "", strings.ToValidUTF8(err.Error(), "\uFFFD"), err)
}

// stream writes JSON objects, one a line, each at once.
type stream struct {
	rc  *http.ResponseController
	enc *json.Encoder
}

// newStream answers that the stream has begun.
func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", typeStream)
	s := &stream{rc: http.NewResponseController(w), enc: json.NewEncoder(w)}
	_ = s.rc.Flush() // the first write tells if the caller is gone
	return s
}

func (s *stream) write(v any) error {
	if err := s.enc.Encode(v); err != nil {
		return err
	}
	return s.rc.Flush()
}

// fail ends the stream with a fault, as a last line with the key "fault".
func (s *stream) fail(err error) { _ = s.write(streamEnd{Fault: asFault(err)}) }

// streamEnd is how a stream that broke ends.
type streamEnd struct {
	Fault *Fault `json:"fault,omitempty"`
}
