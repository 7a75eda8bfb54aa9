package prefetch

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
)

// reach is from how far away an address can be asked.
type reach int32

// The reaches, the nearest first.
const (
	reachLocal   reach = iota // this machine, its link, and what is no unicast address
	reachPrivate              // a network of its own: RFC 1918, 4193 and 6598
	reachPublic
)

func (r reach) String() string {
	return [...]string{"this machine or its link", "a private network", "the public network"}[r]
}

// shared is the address space of carriers (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

func reachOf(ip netip.Addr) reach {
	ip = ip.Unmap()
	switch {
	case !ip.IsGlobalUnicast(): // also without an address
		return reachLocal
	case ip.IsPrivate() || shared.Contains(ip):
		return reachPrivate
	}
	return reachPublic
}

// journey is a request and all that its redirects lead to: a server may send
// back to the one that was asked, and elsewhere, but not to what is nearer than
// itself. That a name resolves to an address of this machine is only known when
// it is connected to, so this is looked at where connections are made.
type journey struct {
	asked *url.URL
	// limit is the nearest reach that may be gone to: that of the last server.
	// Where a proxy reaches it for us it is not known, and what is local is
	// refused.
	limit atomic.Int32
}

type journeyKey struct{}

func newJourney(asked *url.URL) *journey {
	j := &journey{asked: asked}
	j.limit.Store(int32(reachPrivate))
	if IsLocal(asked.Hostname()) {
		j.limit.Store(int32(reachLocal))
	}
	return j
}

// within is the journey of a context, unless that has one: who was told by a
// server where to go is still on the journey that led there.
func (j *journey) within(ctx context.Context) context.Context {
	if ctx.Value(journeyKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, journeyKey{}, j)
}

// reacher is a transport that holds journeys to their limit. What it was led
// to has connections of its own: one that was made to a near server because it
// was asked for is not used by who may not go there.
type reacher struct {
	*http.Transport
	dialer *net.Dialer

	mu      sync.Mutex
	limited map[reach]*http.Transport
}

// newReacher makes a reacher of a transport that NewTransport made.
func newReacher(t *http.Transport, cfg Config) *reacher {
	return &reacher{Transport: t, dialer: newDialer(cfg), limited: make(map[reach]*http.Transport)}
}

// RoundTrip sends a request.
func (t *reacher) RoundTrip(r *http.Request) (*http.Response, error) {
	j, ok := r.Context().Value(journeyKey{}).(*journey)
	if !ok {
		return t.Transport.RoundTrip(r)
	}
	if t.Proxy != nil {
		proxy, err := t.Proxy(r)
		if err != nil || proxy != nil { // who connects is the proxy
			return t.Transport.RoundTrip(r)
		}
	}
	next := t.Transport
	if r.URL.Host != j.asked.Host {
		next = t.to(reach(j.limit.Load()))
	}
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if at, ok := c.Conn.RemoteAddr().(*net.TCPAddr); ok {
			j.limit.Store(int32(reachOf(at.AddrPort().Addr())))
		}
	}}
	return next.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}

// to is a transport to what is not nearer than the limit.
func (t *reacher) to(limit reach) *http.Transport {
	if limit == reachLocal {
		return t.Transport
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if have := t.limited[limit]; have != nil {
		return have
	}
	d := *t.dialer
	d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if got := reachOf(at.Addr()); got < limit {
			return fmt.Errorf("%w: to %s, which is on %s, and who led there is not", errRedirect, at.Addr(), got)
		}
		return nil
	}
	c := t.Transport.Clone()
	c.DialContext = d.DialContext
	t.limited[limit] = c
	return c
}

// CloseIdleConnections closes the connections that are kept for later requests.
func (t *reacher) CloseIdleConnections() {
	t.Transport.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.limited {
		c.CloseIdleConnections()
	}
}
