package codec

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestMetadataLayout holds the encoder to the description in format.go.
func TestMetadataLayout(t *testing.T) {
	m := Metadata{Name: "node1", Instance: 0x1122334455667788, Epoch: 300, Observer: true,
		Tags:     map[string]string{"z": "1", "a": ""},
		Services: map[string]string{"rep": ":41234", "low": ":7", "url": "tcp://10.0.0.5:1"}}
	want := fromHex(t,
		"97",           // array of 7
		"01",           // version
		"02",           // flags: observer
		"a56e6f646531", // "node1"
		"cf1122334455667788",
		"cd012c",             // epoch 300
		"82 a161a0 a17aa131", // tags a, z
		"83",                 // services low, rep, url
		"a36c6f77 07",
		"a3726570 cda112",
		"a375726c b07463703a2f2f31302e302e302e353a31",
	)
	got, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

// TestMetadataIsMsgpack reads the bytes with the library instead of our reader.
func TestMetadataIsMsgpack(t *testing.T) {
	var got any
	if err := (Msgpack{}).Unmarshal(readGolden(t, "testdata/metadata-node1.hex"), &got); err != nil {
		t.Fatal(err)
	}
	want := []any{int64(1), int64(0), "node1", uint64(0xa0b0c0d0e0f01020), uint64(1_760_000_000_000_000_000),
		map[string]any{}, map[string]any{"unicast-rep": uint64(41234), "unicast-pull": uint64(41235)}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %#v\nwant %#v", got, want)
	}
}

// TestMetadataIsSmall: joins slow down when metadata is large.
func TestMetadataIsSmall(t *testing.T) {
	m := goldenMetadata["metadata-node1"]
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) >= 100 {
		t.Errorf("%d bytes", len(b))
	}
}

func TestMetadataIsDeterministic(t *testing.T) {
	build := func(up bool) []byte {
		m := Metadata{Name: "n", Instance: 1, Tags: map[string]string{}, Services: map[string]string{}}
		for i := range 20 {
			if !up {
				i = 19 - i
			}
			m.Tags[fmt.Sprint("t", i)] = "v"
			m.Services[fmt.Sprint("s", i)] = fmt.Sprint(":", 1000+i)
		}
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := build(true)
	for range 20 {
		if !bytes.Equal(first, build(false)) {
			t.Fatal("equal values, different bytes")
		}
	}
}

func TestMetadataAppendRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*Metadata)
		want   any
		text   string
	}{
		"no name":       {func(m *Metadata) { m.Name = "" }, new(*NameError), "node name"},
		"name":          {func(m *Metadata) { m.Name = "a/b" }, new(*NameError), `has '/' at byte 1`},
		"instance":      {func(m *Metadata) { m.Instance = 0 }, new(*FormatError), "instance"},
		"tag key":       {func(m *Metadata) { m.Tags = map[string]string{"": "v"} }, new(*NameError), "tag key"},
		"tag value":     {func(m *Metadata) { m.Tags = map[string]string{"k": "a\nb"} }, new(*NameError), "tag value"},
		"service":       {func(m *Metadata) { m.Services = map[string]string{"a b": ":1"} }, new(*NameError), "service name"},
		"endpoint":      {func(m *Metadata) { m.Services = map[string]string{"a": "tcp://host:1"} }, new(*NameError), "endpoint"},
		"does not fit":  {func(m *Metadata) { fill(m, 1000) }, new(*LimitError), "the limit is 512 bytes"},
		"one too many":  {func(m *Metadata) { fill(m, 513) }, new(*LimitError), "metadata is 513 bytes, the limit is 512 bytes"},
		"port 0":        {func(m *Metadata) { m.Services = map[string]string{"a": ":0"} }, new(*NameError), "endpoint"},
		"leading zeros": {func(m *Metadata) { m.Services = map[string]string{"a": ":080"} }, new(*NameError), "endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			m := Metadata{Name: "node1", Instance: 1}
			row.change(&m)
			b, err := m.Append([]byte("dst"))
			wantError(t, err, row.want, row.text)
			if string(b) != "dst" {
				t.Errorf("dst became %q", b)
			}
		})
	}
	m := Metadata{Name: "node1", Instance: 1}
	fill(&m, MaxMetadata)
	b, err := m.Append([]byte("dst"))
	if err != nil || len(b) != 3+MaxMetadata || !bytes.HasPrefix(b, []byte("dst")) {
		t.Fatalf("exactly 512 bytes: %d, %v", len(b), err)
	}
	if got, err := ParseMetadata(b[3:]); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("exactly 512 bytes: %+v, %v", got, err)
	}
}

// fill adds tags until a Metadata{Name: "node1", Instance: 1} has size bytes.
func fill(m *Metadata, size int) {
	m.Tags = map[string]string{}
	size -= 1 + 1 + 1 + 6 + 1 + 1 + 1 + 1 // all else
	for i := 0; size > 0; i++ {
		n := min(size-5, 100) // two bytes before a value of 32 bytes and more, three for the key
		if left := size - 5 - n; left > 0 && left < 40 {
			n -= 40
		}
		m.Tags[string(rune('a'+i/10))+string(rune('0'+i%10))] = strings.Repeat("v", n)
		size -= 5 + n
	}
}

func TestParseMetadataRefuses(t *testing.T) {
	const (
		head = "97 01 00 a16e 01 00" // name n, instance 1, epoch 0
		none = "80"                  // an empty map
	)
	str := func(s string) string { return fmt.Sprintf("d9%02x%x", len(s), s) }
	service := func(value string) []byte { return fromHex(t, head, none, "81 a161", value) }
	for name, row := range map[string]struct {
		b    []byte
		want any
		text string
	}{
		"nothing":            {nil, ErrTruncated, "malformed metadata: array: truncated"},
		"foreign":            {[]byte("hello"), ErrType, "instead of an array"},
		"oversized":          {make([]byte, 513), new(*LimitError), "metadata is 513 bytes, the limit is 512 bytes"},
		"empty array":        {fromHex(t, "90"), ErrTruncated, "empty"},
		"empty array, more":  {fromHex(t, "90 01"), ErrTruncated, "empty"},
		"version 0":          {fromHex(t, "97 00"), new(*VersionError), "metadata has format version 0"},
		"version 2":          {fromHex(t, "98 02"), new(*VersionError), "metadata has format version 2"},
		"version is text":    {fromHex(t, "97 a131"), ErrType, "version"},
		"six elements":       {fromHex(t, "96 01 00 a16e 01 00 80"), new(*FormatError), "6 elements instead of 7"},
		"eight elements":     {fromHex(t, "98 01 00 a16e 01 00 80 80 80"), new(*FormatError), "8 elements instead of 7"},
		"huge array":         {fromHex(t, "dd ffffffff 01"), new(*FormatError), "4294967295 elements"},
		"flags":              {fromHex(t, "97 01 04 a16e 01 00 80 80"), ErrFlags, "unknown flags 0x4"},
		"flags are a bool":   {fromHex(t, "97 01 c3 a16e 01 00 80 80"), ErrType, "flags"},
		"name":               {fromHex(t, "97 01 00 a120 01 00 80 80"), new(*NameError), "name: node name"},
		"name is bin":        {fromHex(t, "97 01 00 c4016e 01 00 80 80"), ErrType, "instead of a string"},
		"name is nil":        {fromHex(t, "97 01 00 c0 01 00 80 80"), ErrType, "name"},
		"name of 4 GiB":      {fromHex(t, "97 01 00 db ffffffff 6e"), ErrTruncated, "1 bytes left of 4294967295"},
		"long name":          {fromHex(t, "97 01 00 d940", strings.Repeat("61", 64), "01 00 80 80"), new(*LimitError), "64 bytes"},
		"instance 0":         {fromHex(t, "97 01 00 a16e 00 00 80 80"), new(*FormatError), "instance: 0 is no instance"},
		"negative instance":  {fromHex(t, "97 01 00 a16e ff 00 80 80"), ErrType, "instance"},
		"negative epoch":     {fromHex(t, "97 01 00 a16e 01 d1ffff 80 80"), ErrType, "negative"},
		"epoch is a float":   {fromHex(t, "97 01 00 a16e 01 ca00000000 80 80"), ErrType, "epoch"},
		"tags are an array":  {fromHex(t, head, "90", none), ErrType, "tags: wrong type: msgpack type 0x90 instead of a map"},
		"tags are nil":       {fromHex(t, head, "c0", none), ErrType, "tags"},
		"2^32 tags":          {fromHex(t, head, "df ffffffff", "a161a0"), ErrTruncated, "4294967295 entries in 3 bytes"},
		"tag twice":          {fromHex(t, head, "82 a161a0 a161a162", none), ErrDuplicate, `duplicate key "a"`},
		"tag key empty":      {fromHex(t, head, "81 a0a0", none), new(*NameError), "tag key"},
		"tag key control":    {fromHex(t, head, "81 a10aa0", none), new(*NameError), "tag key"},
		"tag key a number":   {fromHex(t, head, "81 01a0", none), ErrType, "instead of a string"},
		"tag value control":  {fromHex(t, head, "81 a161a11b", none), new(*NameError), "has U+001B"},
		"tag value bidi":     {fromHex(t, head, "81 a161a3e280ae", none), new(*NameError), "has U+202E"},
		"tag value not UTF8": {fromHex(t, head, "81 a161a1ff", none), new(*NameError), "not UTF-8"},
		"tag value long":     {fromHex(t, head, "81 a161 d981", strings.Repeat("61", 129), none), new(*LimitError), "129 bytes"},
		"tag value missing":  {fromHex(t, head, "81 a161"), ErrTruncated, "tags"},
		"service twice":      {fromHex(t, head, none, "82 a16101 a16102"), ErrDuplicate, "services"},
		"service name":       {fromHex(t, head, none, "81 a120 01"), new(*NameError), "service name"},
		"port 0":             {service("00"), new(*FormatError), "services: a: port 0 is not within 1 to 65535"},
		"port 65536":         {service("ce00010000"), new(*FormatError), "port 65536"},
		"port negative":      {service("ff"), ErrType, "services"},
		"port as a string":   {service(str(":80")), ErrType, "a port as a string"},
		"URL empty":          {service("a0"), new(*NameError), "endpoint"},
		"URL scheme":         {service(str("file:///etc/passwd")), new(*NameError), "unknown scheme"},
		"URL host":           {service(str("tcp://example.com:80")), new(*NameError), "literal address"},
		"URL unspecified":    {service(str("tcp://0.0.0.0:80")), new(*NameError), "unspecified"},
		"URL long":           {service(str("tcp://" + strings.Repeat("1", 123))), new(*LimitError), "129 bytes"},
		"trailing":           {fromHex(t, head, none, none, "c0"), ErrTrailing, "malformed metadata: trailing bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseMetadata(row.b)
			wantError(t, err, row.want, row.text)
			if !reflect.DeepEqual(m, Metadata{}) {
				t.Errorf("metadata beside the error: %+v", m)
			}
		})
	}
	if _, err := ParseMetadata(fromHex(t, head, none, none)); err != nil {
		t.Errorf("the valid one that the rows are made of: %v", err)
	}
}

func TestParseMetadataEveryCut(t *testing.T) {
	for _, b := range goldenFiles(t, "metadata-") {
		for n := range b {
			if _, err := ParseMetadata(b[:n:n]); err == nil {
				t.Errorf("the first %d bytes of %x parse", n, b)
			}
		}
	}
}

// TestParseMetadataAnyForm: other encoders take longer forms and other orders.
func TestParseMetadataAnyForm(t *testing.T) {
	b := fromHex(t,
		"dd00000007",                // array 32
		"cc01", "d000", "da0001 6e", // uint 8, int 8, str 16
		"d3 0000000000000001",                 // int 64
		"ce 00000000",                         // uint 32
		"de0002 db00000001 62 a0 a161 d90178", // map 16 with str 32, unsorted
		"df00000001 a173 d2 0000ffff",         // map 32 with int 32
	)
	got, err := ParseMetadata(b)
	if err != nil {
		t.Fatal(err)
	}
	want := Metadata{Name: "n", Instance: 1, Tags: map[string]string{"a": "x", "b": ""}, Services: map[string]string{"s": ":65535"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestParseMetadataDoesNotAlias(t *testing.T) {
	b := readGolden(t, "testdata/metadata-full.hex")
	m, err := ParseMetadata(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(m, goldenMetadata["metadata-full"]) {
		t.Errorf("changed with the input: %+v", m)
	}
}

// TestParseMetadataAllocates: a claim of 2^32 entries costs no more than an error.
func TestParseMetadataAllocates(t *testing.T) {
	for _, hex := range []string{
		"97 01 00 a16e 01 00 dfffffffff",
		"97 01 00 a16e 01 00 80 dfffffffff",
		"97 01 00 dbffffffff",
		"ddffffffff 01",
	} {
		b := fromHex(t, hex)
		if n := allocated(func() { _, _ = ParseMetadata(b) }); n > 2<<10 {
			t.Errorf("%s: %d bytes allocated", hex, n)
		}
	}
}

func TestMetadataErrorsAreTyped(t *testing.T) {
	_, err := ParseMetadata([]byte{0x97, 1, 0, 0xa1, ' '})
	var format *FormatError
	if !errors.As(err, &format) || format.What != "metadata" || format.Field != "name" {
		t.Errorf("%#v", err)
	}
}
