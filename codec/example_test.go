package codec_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/parley-mesh/parley/codec"
)

func ExampleParseEnvelope() {
	sent := codec.Envelope{
		Kind: codec.KindRequest, ID: codec.NewID(7, 1), Timeout: 1500 * time.Microsecond,
		From: "node1", To: "node2", Topic: "orders", Body: []byte("two apples"),
	}
	frame, err := sent.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := codec.ParseEnvelope(frame, 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s from %s on %s within %v: %s\n", got.Kind, got.From, got.Topic, got.Timeout, got.Body)

	_, err = codec.ParseEnvelope([]byte("hello from nngcat"), 1<<20)
	fmt.Println(errors.Is(err, codec.ErrNotEnvelope))
	_, err = codec.ParseEnvelope(frame, 4)
	fmt.Println(err)
	// Output:
	// request from node1 on orders within 2ms: two apples
	// true
	// body is 10 bytes, the limit is 4 bytes
}

func ExampleMetadata() {
	m := codec.Metadata{
		Name: "node1", Instance: 0x1122334455667788, Epoch: 42,
		Tags:     map[string]string{"zone": "eu-1"},
		Services: map[string]string{"unicast-rep": ":41234", "sp/orders": "tcp://10.0.0.5:7000"},
	}
	b, err := m.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(b), "bytes")
	got, err := codec.ParseMetadata(b)
	fmt.Println(got.Name, got.Tags["zone"], got.Services["unicast-rep"], err)

	_, err = codec.ParseMetadata([]byte{0x97, 2})
	fmt.Println(err)
	// Output:
	// 76 bytes
	// node1 eu-1 :41234 <nil>
	// metadata has format version 2, this release reads version 1 only
}

func ExampleValidName() {
	fmt.Println(codec.ValidName("node1"))
	fmt.Println(codec.ValidName("node 1"))
	// Output:
	// <nil>
	// node name "node 1" has ' ' at byte 4; allowed: 1 to 63 bytes of a-z A-Z 0-9 . _ - that begin with a letter or digit
}

func ExampleMsgpack() {
	type Order struct {
		ID   int    `codec:"id"`
		Item string `codec:"item"`
	}
	var c codec.Codec = codec.Msgpack{}
	b, err := c.Marshal(Order{ID: 7, Item: "apple"})
	if err != nil {
		fmt.Println(err)
		return
	}
	var got Order
	err = c.Unmarshal(b, &got)
	fmt.Println(len(b), got, err)

	err = c.Unmarshal([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, &got)
	fmt.Println(err)
	// Output:
	// 16 {7 apple} <nil>
	// malformed msgpack: truncated: 4294967295 values in 0 bytes
}
