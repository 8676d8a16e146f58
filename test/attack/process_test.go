package attack

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-mesh/parley/sp"
)

// soon bounds what should take milliseconds, on a machine that is busy.
const soon = 30 * time.Second

// process is a target or an asker. Its methods end the test when it does not
// answer.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
	hello   hello
	quit    func() // ends it, as the end of the test does
}

// spawn starts this binary again with an environment variable, and sees to it that
// it has ended, in good order, when the test does.
func spawn(t testing.TB, env, value string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	// A process under the race detector would otherwise end a second late.
	cmd.Env = append(os.Environ(), env+"="+value, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, in: in, answers: json.NewDecoder(out)}
	p.quit = sync.OnceFunc(func() {
		_ = in.Close()
		// One that does not end tells where it hangs.
		hung := time.AfterFunc(soon, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
		kill := time.AfterFunc(2*soon, func() { _ = cmd.Process.Kill() })
		_, _ = io.Copy(io.Discard, out)
		err := cmd.Wait()
		hung.Stop()
		kill.Stop()
		if err != nil {
			t.Errorf("the other process ended with %v and said:\n%s", err, &said)
		}
	})
	t.Cleanup(p.quit)
	p.answer(&p.hello)
	if p.hello.Error != "" {
		t.Skip(p.hello.Error)
	}
	return p
}

func (p *process) answer(to any) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.answers.Decode(to) }()
	select {
	case err := <-done:
		if err != nil {
			p.t.Fatalf("no answer from the other process: %v", err)
		}
	case <-time.After(2 * soon):
		_ = p.cmd.Process.Kill()
		<-done
		p.t.Fatalf("no answer from the other process within %v", 2*soon)
	}
}

func (p *process) call(cmd string, to any) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, cmd+"\n"); err != nil {
		p.t.Fatal(err)
	}
	p.answer(to)
}

// target is a listener in a process of its own.
type target struct {
	*process
	puller bool
}

func newTarget(t testing.TB, spec targetSpec) *target {
	t.Helper()
	v, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return &target{spawn(t, envTarget, string(v)), spec.Puller}
}

func (p *target) url() string { return p.hello.URL }

func (p *target) look() (r report) {
	p.t.Helper()
	p.call(cmdLook, &r)
	return r
}

func (p *target) settle() (r report) {
	p.t.Helper()
	p.call(cmdSettle, &r)
	return r
}

// waitFor looks until the Stats are as they should be.
func (p *target) waitFor(what string, ok func(sp.Stats) bool) report {
	p.t.Helper()
	var r report
	p.eventually(what, func() bool {
		r = p.look()
		return ok(r.Stats)
	}, func() any { return r.Stats })
	return r
}

func (p *target) eventually(what string, ok func() bool, seen func() any) {
	p.t.Helper()
	deadline := time.Now().Add(soon)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within %v: %s; last seen: %+v", soon, what, seen())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// backTo waits until nothing is left of what came after base but a little memory.
// The pipes of base are still there.
func (p *target) backTo(base report) {
	p.t.Helper()
	const slack = 512 << 10 // tables that have grown
	var r report
	p.eventually("all is as it was before", func() bool {
		r = p.settle()
		st := r.Stats
		return st.Pipes == base.Stats.Pipes && st.Pending == 0 && r.Goroutines <= base.Goroutines &&
			r.Files <= base.Files && r.Heap <= base.Heap+slack
	}, func() any { return []report{base, r} })
}

// rarelyLogged fails the test when a kind of line was logged more than once a
// second, or when nothing was.
func (p *target) rarelyLogged(r report) {
	p.t.Helper()
	if len(r.Lines) == 0 {
		p.t.Error("nothing was logged")
	}
	for what, n := range r.Lines {
		if most := 1 + int(r.Age/time.Second); n > most {
			p.t.Errorf("%d lines %q in %v", n, what, r.Age)
		}
	}
}

// asker is an honest peer in a process of its own.
type asker struct{ *process }

func newAsker(t testing.TB, of *target) *asker {
	t.Helper()
	v, err := json.Marshal(of.hello)
	if err != nil {
		t.Fatal(err)
	}
	return &asker{spawn(t, envAsker, string(v))}
}

// tell returns what the asker has seen since it was last asked. What it sees must
// be good enough whatever goes on beside it.
func (p *asker) tell(when string) latencies {
	p.t.Helper()
	var l latencies
	p.call(cmdTell, &l)
	p.t.Logf("%s: %v", when, l)
	if l.Requests == 0 || l.Failed > 0 {
		p.t.Errorf("%s: %d of %d honest requests failed: %s", when, l.Failed, l.Requests, l.Error)
	}
	if l.P99 > time.Second {
		p.t.Errorf("%s: honest requests waited %v (p99)", when, l.P99)
	}
	return l
}

// calm is what the asker sees of the target when nothing else goes on.
func (p *asker) calm() latencies {
	p.t.Helper()
	var l latencies
	p.call(cmdTell, &l)
	time.Sleep(time.Second) // the measurement's length
	return p.tell("before")
}

func summary(took []time.Duration) latencies {
	if len(took) == 0 {
		return latencies{}
	}
	s := slices.Sorted(slices.Values(took))
	return latencies{Requests: len(s), P50: s[len(s)/2], P99: s[len(s)*99/100], Max: s[len(s)-1]}
}

func hostport(url string) string { return url[strings.Index(url, "://")+3:] }
