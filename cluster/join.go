package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// joinParallel bounds the exchanges that one Join has under way.
const joinParallel = 64

// exchangeRest is how long a seed that answered is not looked at again, unless
// nobody else is alive.
const exchangeRest = 10 * time.Minute

// Join makes this node a member of the seeds' cluster and returns how many of
// the seeds let it in. A seed is "host:port", "host" (port 7946), or an IPv6
// address with or without brackets; of a DNS name all addresses are tried. All
// seeds are tried at once, each for up to 5 s (15 s on a WAN), and once one has
// answered, the others get one second more (3 s). Seeds that answered are
// tried again later whenever nobody else is alive.
//
// An error is returned only if none answered. Errors: *JoinError with one
// *SeedError for each seed (which may wrap ErrKeyMismatch, ErrSelf,
// ErrUnreachableFrom, a DNS or network error); *AddressError, before anything
// is dialled, for a seed that is not written as an address; ErrNameTaken when
// the cluster has a newer node under this name, which ends this one; the cause
// of ctx; ErrClosed.
func (n *Node) Join(ctx context.Context, seeds ...string) (joined int, err error) {
	if n.stopping.Load() {
		return 0, n.closedError("join")
	}
	parsed, err := parseSeeds(seeds)
	if err != nil {
		return 0, fmt.Errorf("cluster: join: %w", err)
	}
	if len(parsed) == 0 {
		return 0, &JoinError{Cause: errNoSeeds}
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })()

	answered, failed := n.tryAll(ctx, cancel, parsed)
	if len(answered) > 0 && n.outranked() {
		if err := n.settleName(outer); errors.Is(err, ErrNameTaken) {
			return 0, err
		}
	}
	switch {
	case len(answered) > 0 && n.members.Load() < 2 && !n.stopping.Load():
		// Whoever answered is not in the list.
		err := ErrRefused
		if n.metSelf.Load() {
			err = ErrSelf // by way of an address that was not known to be its own
		}
		failed = append(failed, &SeedError{Seed: answered[0].text, Err: err})
	case len(answered) > 0:
		for _, f := range failed {
			n.log.Warn("a seed did not answer", "seed", f.Seed, "err", f.Err)
		}
		rest := time.Now().Add(exchangeRest)
		for _, s := range answered {
			n.seeds.answered(s, rest)
		}
		return len(answered), nil
	}
	if n.stopping.Load() {
		return 0, n.closedError("join")
	}
	return 0, &JoinError{Seeds: failed, Cause: context.Cause(outer)}
}

// tryAll tries all seeds at once and returns when all have answered or failed;
// it cancels those that are still trying some time after the first answer.
func (n *Node) tryAll(ctx context.Context, cancel context.CancelCauseFunc, seeds []seed) (answered []seed, failed []*SeedError) {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		slots = make(chan struct{}, joinParallel)
		grace *time.Timer
	)
	for _, s := range seeds {
		started := n.spawnWith(&wg, func() {
			err := n.try(ctx, s, slots)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, &SeedError{Seed: s.text, Err: err})
				return
			}
			answered = append(answered, s)
			if grace == nil {
				grace = time.AfterFunc(n.settings.profile.joinGrace, func() { cancel(errGrace) })
			}
		})
		if !started {
			break
		}
	}
	wg.Wait()
	if grace != nil {
		grace.Stop()
	}
	return answered, failed
}

var errNoSeeds = errors.New("no seeds were given")

var errGrace = errors.New("other seeds answered sooner")

// spawnWith is spawn for a goroutine that wg waits for too.
func (n *Node) spawnWith(wg *sync.WaitGroup, f func()) bool {
	wg.Add(1)
	if n.spawn(func() { defer wg.Done(); f() }) {
		return true
	}
	wg.Done()
	return false
}

// try exchanges states with every address of s and returns nil if one answered.
func (n *Node) try(ctx context.Context, s seed, slots chan struct{}) error {
	limit := n.settings.profile.dial
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	addrs, err := s.addresses(ctx, n.settings.hooks.lookup)
	if err != nil {
		return err
	}
	addrs, err = n.reachable(addrs)
	if err != nil {
		return err
	}
	errs := make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				errs[i] = context.Cause(ctx)
				return
			}
			errs[i] = n.exchange(ctx, addr)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return errs[0]
}

// reachable leaves out what is this node itself, and what could not answer it.
func (n *Node) reachable(addrs []netip.AddrPort) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	var last error
	for _, addr := range addrs {
		switch {
		case n.isSelf(addr):
			last = ErrSelf
		case n.transport.advertise.Addr().IsLoopback() && !addr.Addr().IsLoopback():
			last = fmt.Errorf("%w, which advertises %s; give it an address of this host to bind or to advertise", ErrUnreachableFrom, n.Addr())
		default:
			out = append(out, addr)
		}
	}
	if len(out) == 0 {
		return nil, last
	}
	return out, nil
}

// exchange gives this node's state to the node at addr and takes that one's:
// it is what memberlist calls both a join and a push/pull. ctx bounds all of it.
func (n *Node) exchange(ctx context.Context, addr netip.AddrPort) error {
	n.flush()
	c, end := n.transport.begin(ctx)
	defer end()
	_, err := n.ml.Join([]string{c.name + "/" + addr.String()})
	if err == nil {
		return nil
	}
	if cause := ended(ctx); cause != nil {
		return cause
	}
	return explainExchange(c.dialErr, err)
}

// ended returns the cause of ctx, also when its deadline has just passed and
// the network has noticed first.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return context.Cause(ctx)
}

// keyMismatches are the texts of memberlist v0.7.0 when only one side has a key
// or the keys differ; it has no error values for them.
var keyMismatches = []string{
	"no installed keys could decrypt the message",
	"remote state is encrypted and encryption is not configured",
	"encryption is configured but remote state is not encrypted",
}

// explainExchange says in an operator's words why an exchange failed.
func explainExchange(dialErr, err error) error {
	if dialErr != nil {
		var op *net.OpError
		if errors.As(dialErr, &op) {
			dialErr = op.Err
		}
		var sys *os.SyscallError
		if errors.As(dialErr, &sys) {
			dialErr = sys.Err
		}
		return dialErr
	}
	text := err.Error()
	for _, mismatch := range keyMismatches {
		if strings.Contains(text, mismatch) {
			return fmt.Errorf("answered but %w", ErrKeyMismatch)
		}
	}
	if _, after, found := strings.Cut(text, "failed to join "); found {
		if _, reason, found := strings.Cut(after, ": "); found {
			text = strings.TrimSpace(reason)
		}
	}
	if strings.HasSuffix(text, "EOF") || strings.Contains(text, "connection reset by peer") {
		return ErrHungUp
	}
	return fmt.Errorf("answered, but not as a node: %s", text)
}
