package codec

// Version is the format version that this package writes and the only one that
// it reads, for envelope, reply and metadata alike.
//
// # Compatibility
//
// There are no optional parts: a byte that a version does not define must be
// zero, a value that it does not define is refused. So any change of a format
// takes the next version number, and a reader refuses the versions it does not
// know with a [*VersionError]. A cluster is upgraded without a pause by two
// releases: the first reads both versions and writes the old one, the second
// writes the new one. Versions stay below 32, so that a foreign text that
// happens to begin with P or R is not taken for one of ours.
//
// # Envelope
//
// Integers are unsigned and big endian.
//
//	offset  size  field
//	     0     1  magic, 'P' (0x50)
//	     1     1  version, 1
//	     2     1  kind: 1 push, 2 send, 3 request, 4 ping, 5 gossip, 6 broadcast
//	     3     1  flags, 0
//	     4    16  id: the sender's instance (8), its sequence number (8)
//	    20     8  instance of the receiver that is meant; 0: any
//	    28     4  time left for the receiver, milliseconds; 0: no deadline
//	    32     1  F, length of from, 1 to 63
//	    33     1  T, length of to, 0 to 63; 0 for gossip and broadcast only
//	    34     1  C, length of topic, 0 to 255
//	    35     1  reserved, 0
//	    36     4  B, length of body, at most 16,777,216
//	    40     F  from: the sender's node name
//	     …     T  to: the receiver's node name
//	     …     C  topic
//	     …     B  body; the message ends with it
//
// # Reply
//
//	offset  size  field
//	     0     1  magic, 'R' (0x52)
//	     1     1  version, 1
//	     2     1  status, 0 to 9, in the order of the Status constants
//	     3     1  flags, 0
//	     4    16  id of the message that is answered
//	    20     2  T, length of text, at most 4,096
//	    22     2  reserved, 0
//	    24     4  B, length of body, at most 16,777,216
//	    28     T  text: UTF-8; of the control characters only tab and line feed
//	     …     B  body; the message ends with it
//
// # Metadata
//
// One msgpack array of seven elements, 512 bytes at most:
//
//	0  version, 1
//	1  flags: 1 leaving, 2 observer, added up
//	2  name, a string
//	3  instance, an integer from 1 to 2^64-1
//	4  epoch, an integer from 0 to 2^64-1
//	5  tags, a map from string to string
//	6  services, a map from string to an integer (a port on the member's own
//	   host, 1 to 65535) or a string (a URL such as "tcp://10.0.0.5:41234")
//
// The writer sorts the keys and takes the shortest form of every integer and
// length, so equal values give equal bytes. A reader accepts any order and any
// form of an integer or length, but a key only once and nothing after the array.
const Version = 1

// Sizes of the formats, in bytes.
const (
	MaxBody     = 16 << 20 // the largest body that the formats carry, whatever the configuration says
	MaxName     = 63       // a node name, see ValidName
	MaxService  = 63       // a service name, see ValidService
	MaxTopic    = 255      // a topic, see ValidTopic
	MaxTagKey   = 63       // a tag's key, see ValidTag
	MaxTagValue = 128      // a tag's value, see ValidTag
	MaxURL      = 128      // an endpoint's URL, see ValidEndpoint
	MaxText     = 4 << 10  // a reply's text
	MaxMetadata = 512      // a member's metadata, which is memberlist's cap

	// EnvelopeOverhead and ReplyOverhead are the most that an envelope and a
	// reply add to their body: a transport that carries bodies of n bytes must
	// accept messages of n plus the overhead.
	EnvelopeOverhead = envelopeHeader + 2*MaxName + MaxTopic
	ReplyOverhead    = replyHeader + MaxText
)

const (
	envelopeMagic  = 'P'
	replyMagic     = 'R'
	versionEnd     = 0x20 // versions stay below; see Version
	envelopeHeader = 40
	replyHeader    = 28
)
