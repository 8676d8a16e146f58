package control

import (
	"context"
	"net/http"
	"strconv"
)

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
	if opts.Slots > MaxSlots {
		return NewFault(CodeUsage, "", "a listener answers at most "+strconv.Itoa(MaxSlots)+" messages at a time", nil)
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
