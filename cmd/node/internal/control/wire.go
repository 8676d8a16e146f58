package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

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
