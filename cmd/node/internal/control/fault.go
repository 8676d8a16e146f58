package control

import "net/http"

// Code is the stable name of a way to fail. Scripts may rely on it.
type Code string

// The ways to fail. The table below gives each its exit code.
const (
	CodeInternal      Code = "internal"          // something that should not happen
	CodeUsage         Code = "usage"             // the call itself is wrong
	CodeCanceled      Code = "canceled"          // the caller gave up
	CodeUnreachable   Code = "agent_unreachable" // no agent, or it does not answer
	CodeAmbiguous     Code = "agent_ambiguous"   // several agents, and nobody said which
	CodeUnknownNode   Code = "unknown_node"
	CodeNodeLeft      Code = "node_left"
	CodeNodeFailed    Code = "node_failed"
	CodeTimeout       Code = "timeout"
	CodeNoReply       Code = "no_reply" // the connection to the node could not be made, or broke
	CodePartial       Code = "partial"  // some of many failed
	CodeHandlerFailed Code = "handler_failed"
	CodeNoListener    Code = "no_listener"
	CodeNoService     Code = "no_service" // the node has no mailbox
	CodeRefused       Code = "refused"    // another node answered, or the keys differ
	CodeBusy          Code = "busy"       // a limit was reached
	CodeTooLarge      Code = "too_large"
)

// table is shared by both sides: the agent takes the HTTP status from it, the
// command line the exit code.
var table = map[Code]struct{ exit, http int }{
	CodeInternal:      {1, http.StatusInternalServerError},
	CodeUsage:         {1, http.StatusBadRequest},
	CodeCanceled:      {1, 499},
	CodeUnreachable:   {2, http.StatusServiceUnavailable},
	CodeAmbiguous:     {2, http.StatusServiceUnavailable},
	CodeUnknownNode:   {3, http.StatusNotFound},
	CodeNodeLeft:      {4, http.StatusGone},
	CodeNodeFailed:    {4, http.StatusGone},
	CodeTimeout:       {5, http.StatusGatewayTimeout},
	CodeNoReply:       {5, http.StatusBadGateway},
	CodePartial:       {6, http.StatusBadGateway},
	CodeHandlerFailed: {7, http.StatusBadGateway},
	CodeNoListener:    {7, http.StatusBadGateway},
	CodeNoService:     {7, http.StatusBadGateway},
	CodeRefused:       {8, http.StatusForbidden},
	CodeBusy:          {8, http.StatusTooManyRequests},
	CodeTooLarge:      {9, http.StatusRequestEntityTooLarge},
}

// Outcomes of a message, as an error reports them.
const (
	NotDelivered  = "NOT DELIVERED"  // nobody has handled it, and nobody will
	Unknown       = "UNKNOWN"        // it may or may not have been handled
	HandlerFailed = "HANDLER FAILED" // it was handled, and that failed
)

// Fault is an error for the one who sits at the command line. It crosses the
// control socket as JSON.
type Fault struct {
	Code    Code   `json:"code"`
	Exit    int    `json:"exit"`
	Message string `json:"message"`           // one sentence: what was tried, on whom, what to do next
	Outcome string `json:"outcome,omitempty"` // of the message, if there was one
	cause   error
}

// NewFault makes a Fault with the exit code that belongs to code. outcome may be
// empty, and so may cause, which does not cross the socket.
func NewFault(code Code, outcome, message string, cause error) *Fault {
	return &Fault{Code: code, Exit: ExitCode(code), Message: message, Outcome: outcome, cause: cause}
}

func (f *Fault) Error() string { return f.Message }

// Unwrap returns the cause, nil for a fault that crossed the socket.
func (f *Fault) Unwrap() error { return f.cause }

// ExitCode is the exit code for c; 1 for a code that is not known here.
func ExitCode(c Code) int {
	if row, ok := table[c]; ok {
		return row.exit
	}
	return 1
}

func httpStatus(c Code) int {
	if row, ok := table[c]; ok {
		return row.http
	}
	return http.StatusInternalServerError
}
