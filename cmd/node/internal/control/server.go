package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
