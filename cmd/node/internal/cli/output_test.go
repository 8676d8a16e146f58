package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
)

func TestTable(t *testing.T) {
	p := testProgram()
	p.table([][]cell{
		{{"NAME", faint}, {"STATUS", faint}, {"WHY", plain}},
		{{"node1", bold}, {"alive", green}, {"", plain}},
		{{"žluť", bold}, {"failed", red}, {"gone", plain}},
	})
	want := "NAME   STATUS  WHY\nnode1  alive\nžluť   failed  gone\n"
	if got := p.Stdout.(*bytes.Buffer).String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// An error is one line, and nothing in it can move a cursor: parts of it come
// from other nodes.
func TestReport(t *testing.T) {
	for _, c := range []struct {
		err  error
		exit int
		want string
	}{
		{nil, 0, ""},
		{errors.New("plain"), 1, "parley: plain\n"},
		{control.NewFault(control.CodeTooLarge, "", "too \"large\"", nil), 9, "parley: too \"large\"\n"},
		{control.NewFault(control.CodeHandlerFailed, "", "said \x1b[2J\nroot: \u009b", nil), 7, `parley: said \x1b[2J\nroot: \u009b` + "\n"},
	} {
		p := testProgram()
		if got := p.report(c.err); got != c.exit {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.exit)
		}
		if got := p.Stderr.(*bytes.Buffer).String(); got != c.want {
			t.Errorf("%v: printed %q, want %q", c.err, got, c.want)
		}
	}
}

func TestMemberFilter(t *testing.T) {
	members := []control.Member{
		{Name: "web-1", Status: "alive", Tags: map[string]string{"role": "web", "zone": "a"}},
		{Name: "web-22", Status: "left", Tags: map[string]string{"role": "web"}},
		{Name: "db-1", Status: "failed", Tags: map[string]string{"role": "db", "v": "[1]"}},
	}
	for _, c := range []struct {
		name         string
		status, tags []string
		want         string
	}{
		{"", nil, nil, "web-1 web-22 db-1"},
		{"web-*", nil, nil, "web-1 web-22"},
		{"web-?", nil, nil, "web-1"},
		{"/^(web|db)-[0-9]$/", nil, nil, "web-1 db-1"},
		{"/web/", []string{"left"}, nil, "web-22"},
		{"", []string{"left", "failed"}, nil, "web-22 db-1"},
		{"", nil, []string{"zone"}, "web-1"},
		{"", nil, []string{"role=web"}, "web-1 web-22"},
		{"", nil, []string{"role=w*", "zone=a"}, "web-1"},
		{"", nil, []string{"v=[1]"}, "db-1"},
		{"mars", nil, nil, ""},
	} {
		keep, err := memberFilter(c.name, c.status, c.tags)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		var got []string
		for _, m := range members {
			if keep(m) {
				got = append(got, m.Name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
	for _, bad := range []struct {
		name         string
		status, tags []string
	}{{"[", nil, nil}, {"/(/", nil, nil}, {"", []string{"dead"}, nil}, {"", nil, []string{"a=["}}} {
		if _, err := memberFilter(bad.name, bad.status, bad.tags); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestPingStatistics(t *testing.T) {
	var s pings
	if got := s.String(); got != "0 sent, 0 received, 0% lost" {
		t.Error(got)
	}
	s.add(1e6, nil)
	s.add(3e6, nil)
	s.add(0, errors.New("lost"))
	if got, want := s.String(), "3 sent, 2 received, 33% lost, min/avg/max/mdev 1ms/2ms/3ms/1ms"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
