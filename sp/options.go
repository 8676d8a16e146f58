package sp

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"go.nanomsg.org/mangos/v3"
)

// Options for mangos sockets on our transport, see [RegisterTransport]; our own roles
// do not need them.
const (
	// OptionConfig is a [Config], set on a mangos listener or dialer. The message size
	// is mangos' OptionMaxRecvSize all the same, and what concerns our own roles
	// only has no effect.
	OptionConfig = "PARLEY-CONFIG"
	// OptionStats are the [Stats] of a mangos listener or dialer, read only.
	OptionStats = "PARLEY-STATS"
	// OptionPeerName is who Config.Identify says the peer of a mangos pipe is, a
	// string, read only.
	OptionPeerName = "PARLEY-PEER-NAME"
)

// options is what a listener and a dialer are told before they begin: settings by one
// of our roles, or else mangos' options by anybody.
type options struct {
	secure bool // with TLS

	mu        sync.Mutex
	own       *settings // of one of our roles
	cfg       Config
	maxRecv   int
	noAlive   bool
	aliveTime time.Duration
	log       *logger
	stats     counters
}

// use takes the settings of one of our roles.
func (o *options) use(set *settings) { o.own = set }

// settings makes settings of the options.
func (o *options) settings(listen bool) (*settings, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.own != nil {
		if listen && o.secure && !hasCertificate(o.own.tls) {
			return nil, mangos.ErrTLSNoCert
		}
		return o.own, nil
	}
	cfg, err := o.cfg.normalized()
	if err != nil {
		return nil, err
	}
	switch {
	case !o.secure:
		cfg.TLS = nil
	case cfg.TLS == nil:
		return nil, mangos.ErrTLSNoConfig
	case listen && !hasCertificate(cfg.TLS):
		return nil, mangos.ErrTLSNoCert
	}
	if o.log == nil {
		o.log = newLogger(cfg.Logger)
	}
	max := o.maxRecv
	if max <= 0 || max > HardMaxMessage {
		max = HardMaxMessage
	}
	set := newSettings(cfg, max, &o.stats, o.log)
	set.patient = true // stock PUSH, say, waits for a peer that presses back
	if o.noAlive {
		set.keepAlive = net.KeepAliveConfig{}
	} else if o.aliveTime > 0 {
		set.keepAlive.Idle = o.aliveTime
	}
	return set, nil
}

// setOption sets an option, as mangos' transports do.
func (o *options) setOption(name string, value any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.own != nil { // mangos' core tries; ours are complete
		return mangos.ErrBadOption
	}
	ok := false
	switch name {
	case OptionConfig:
		var cfg Config
		if cfg, ok = value.(Config); ok {
			if cfg.TLS == nil {
				cfg.TLS = o.cfg.TLS
			}
			o.cfg = cfg
		}
	case mangos.OptionTLSConfig:
		if !o.secure {
			return mangos.ErrBadOption
		}
		var cfg *tls.Config
		if cfg, ok = value.(*tls.Config); ok {
			o.cfg.TLS = cfg
		}
	case mangos.OptionMaxRecvSize:
		var n int
		if n, ok = value.(int); ok {
			o.maxRecv = n
		}
	case mangos.OptionKeepAlive:
		var on bool
		if on, ok = value.(bool); ok {
			o.noAlive = !on
		}
	case mangos.OptionKeepAliveTime:
		var d time.Duration
		if d, ok = value.(time.Duration); ok {
			o.noAlive, o.aliveTime = d < 0, d
		}
	case mangos.OptionNoDelay: // as with mangos' own transports, it is always on
		_, ok = value.(bool)
	default:
		return mangos.ErrBadOption
	}
	if !ok {
		return mangos.ErrBadValue
	}
	return nil
}

// getOption reads an option. What a listener or dialer cannot say the pipe or socket may.
func (o *options) getOption(name string) (any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.own != nil {
		return nil, mangos.ErrBadOption
	}
	switch name {
	case mangos.OptionMaxRecvSize:
		return o.maxRecv, nil
	case mangos.OptionTLSConfig:
		if o.secure {
			return o.cfg.TLS, nil
		}
	case mangos.OptionKeepAlive:
		return !o.noAlive, nil
	case mangos.OptionKeepAliveTime:
		return o.aliveTime, nil
	case mangos.OptionNoDelay:
		return true, nil
	}
	return nil, mangos.ErrBadOption
}
