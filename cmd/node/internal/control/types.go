package control

import "time"

// Info describes an agent.
type Info struct {
	Name      string            `json:"name"`
	Cluster   string            `json:"cluster,omitempty"`
	Instance  string            `json:"instance"` // hexadecimal
	Addr      string            `json:"addr"`     // gossip
	Services  map[string]string `json:"services"` // name to URL
	Socket    string            `json:"socket"`
	Profile   string            `json:"profile"`
	Encrypted bool              `json:"encrypted"` // gossip
	Tags      map[string]string `json:"tags"`
	PID       int               `json:"pid"`
	Started   time.Time         `json:"started"`
	Version   string            `json:"version"`
	Limits    Limits            `json:"limits"`
	Listeners int               `json:"listeners"` // attached with "listen"
	Stats     any               `json:"stats"`
}

// Limits that a caller meets.
type Limits struct {
	Message int `json:"message_bytes"`
	Gossip  int `json:"best_effort_broadcast_bytes"`
}

// Member is one node of the cluster.
type Member struct {
	Name     string            `json:"name"`
	Addr     string            `json:"addr"`
	Status   string            `json:"status"` // alive, left, failed
	Tags     map[string]string `json:"tags"`
	Services map[string]string `json:"services"` // name to URL
	Instance string            `json:"instance"` // hexadecimal
	Epoch    uint64            `json:"epoch"`
	Since    time.Time         `json:"since"` // when Status began, as this node saw it
	Self     bool              `json:"self,omitempty"`
}

// Event is one change of the cluster.
type Event struct {
	Type   string    `json:"type"` // joined, updated, left, failed, lagged
	Time   time.Time `json:"time"`
	Member *Member   `json:"member,omitempty"`
	Lost   int       `json:"lost,omitempty"` // lagged: how many events were missed
}

// Target says for whom a message is.
type Target struct {
	Node  string
	Topic string
	Wait  bool // until the node is there, as long as the context allows
}

// MaxSlots bounds how many messages one listener answers at a time.
const MaxSlots = 1024

// Failure says why a node has not handled a broadcast, and what became of it there.
type Failure struct {
	Error   string `json:"error"`
	Outcome string `json:"outcome"` // NotDelivered, Unknown or HandlerFailed
}

// Receipt says what became of a broadcast.
type Receipt struct {
	ID       string             `json:"id,omitempty"`
	Reliable bool               `json:"reliable"`
	Members  int                `json:"members"` // others that were alive
	Handled  []string           `json:"handled,omitempty"`
	Written  []string           `json:"written,omitempty"` // to nodes without a mailbox; not acknowledged
	Failed   map[string]Failure `json:"failed,omitempty"`  // by name
}

// TagChange sets and deletes tags of the agent's node.
type TagChange struct {
	Set    map[string]string `json:"set,omitempty"`
	Delete []string          `json:"delete,omitempty"`
}

// ListenOptions says what a listener wants.
type ListenOptions struct {
	Topics []string // exact, "orders.*", or "*"; none means all
	Answer bool     // it answers what it gets, and shares it with others that do
	Slots  int      // answering: messages at a time; at least 1
	Limit  int      // messages in all; 0: no limit
}

// Record is one line of a listener's stream.
type Record struct {
	Type    string   `json:"type"` // attached, message, cancel, lagged, end
	Session string   `json:"session,omitempty"`
	Agent   string   `json:"agent,omitempty"`
	Seq     uint64   `json:"seq,omitempty"` // of the message, for Answer
	Message *Message `json:"message,omitempty"`
	Lost    int      `json:"lost,omitempty"` // lagged: messages this listener missed
}

// Types of Record.
const (
	RecordAttached = "attached" // first; has Session and Agent
	RecordMessage  = "message"  // to be answered with Seq
	RecordCancel   = "cancel"   // nobody waits for the answer to Seq any more
	RecordLagged   = "lagged"   // messages were missed because the listener was slow
	RecordEnd      = "end"      // the limit was reached; nothing follows
)

// Message is what arrived.
type Message struct {
	Time  time.Time `json:"time"`
	Kind  string    `json:"kind"` // push, send, request, broadcast
	ID    string    `json:"id"`
	From  string    `json:"from"`
	Topic string    `json:"topic"`
	Body  []byte    `json:"body"`
}

// Answer is what a listener says of a message: nil Err means that it was taken.
type Answer struct {
	Reply []byte
	Err   string
}
