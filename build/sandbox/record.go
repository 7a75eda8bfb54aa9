package sandbox

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// record collects what the listener saw. It is the listener's alone until that has
// ended; its size is bounded.
type record struct {
	muted    bool // a canary's call: not the command's
	attempts list[Attempt]
	sockets  list[SocketUse]
	refusals list[RefusedCall]
	writes   list[WriteAttempt]
	faked    map[string]uint64
}

// list counts equal things in the order of their first occurrence.
type list[T any] struct {
	items   []T
	index   map[string]int
	dropped uint64
}

// add counts the thing with this key, made by make when it is new.
func (l *list[T]) add(key string, make func() T, count func(*T)) {
	i, ok := l.index[key]
	if !ok {
		if len(l.items) == maxListed {
			l.dropped++
			return
		}
		i = len(l.items)
		l.items, l.index[key] = append(l.items, make()), i
	}
	count(&l.items[i])
}

func newList[T any]() list[T] { return list[T]{items: []T{}, index: map[string]int{}} }

func newRecord() *record {
	return &record{
		attempts: newList[Attempt](), sockets: newList[SocketUse](), refusals: newList[RefusedCall](), writes: newList[WriteAttempt](), faked: map[string]uint64{},
	}
}

// attempt records an attempt to reach a network.
func (rec *record) attempt(r *request, family, destination string, errno unix.Errno) {
	if rec.muted {
		return
	}
	p := programOf(r.pid)
	key := fmt.Sprintf("%q %q %q %s %s %s", p.Exe, p.Comm, p.Args, r.call.name, family, destination)
	rec.attempts.add(key, func() Attempt {
		return Attempt{Program: p, Call: r.call.name, Family: family, Destination: destination, Errno: errnoName(errno)}
	}, func(a *Attempt) { a.Count++ })
}

// socket records a use of a socket that was allowed.
func (rec *record) socket(r *request, what string) {
	if rec.muted {
		return
	}
	exe := exeOf(r.pid)
	rec.sockets.add(exe+"\x00"+r.call.name+"\x00"+what, func() SocketUse {
		return SocketUse{Exe: exe, Call: r.call.name, What: what}
	}, func(s *SocketUse) { s.Count++ })
}

// refused records a refusal under a name that may say more than the call's.
func (rec *record) refused(r *request, name string, errno unix.Errno) {
	if rec.muted {
		return
	}
	exe := exeOf(r.pid)
	rec.refusals.add(exe+"\x00"+name, func() RefusedCall {
		return RefusedCall{Exe: exe, Call: name, Errno: errnoName(errno)}
	}, func(c *RefusedCall) { c.Count++ })
}

// into writes the record into e, sorted where no order is meant.
func (rec *record) into(e *Evidence) {
	e.Attempts, e.AttemptsDropped = rec.attempts.items, rec.attempts.dropped
	e.Sockets, e.SocketsDropped = rec.sockets.items, rec.sockets.dropped
	e.Refused, e.RefusedDropped = rec.refusals.items, rec.refusals.dropped
	e.Writes, e.WritesDropped = rec.writes.items, rec.writes.dropped
	e.Faked = rec.faked
	slices.SortFunc(e.Sockets, func(a, b SocketUse) int {
		return cmp.Or(cmp.Compare(a.Exe, b.Exe), cmp.Compare(a.Call, b.Call), cmp.Compare(a.What, b.What))
	})
	slices.SortFunc(e.Writes, func(a, b WriteAttempt) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Exe, b.Exe), cmp.Compare(a.Call, b.Call))
	})
	slices.SortFunc(e.Refused, func(a, b RefusedCall) int {
		return cmp.Or(cmp.Compare(a.Exe, b.Exe), cmp.Compare(a.Call, b.Call))
	})
}

// exeOf is the executable of a process as the sandbox sees it, "" if it is gone.
func exeOf(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(exe, "\uFFFD")
}

func programOf(pid int) Program {
	return Program{
		Exe:  exeOf(pid),
		Comm: strings.TrimSuffix(procText(pid, "comm"), "\n"),
		Args: strings.Split(strings.TrimSuffix(procText(pid, "cmdline"), "\x00"), "\x00"),
	}
}

// procText is the first 4096 bytes of a file in /proc/PID, as valid UTF-8.
func procText(pid int, name string) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	return strings.ToValidUTF8(string(b[:n]), "\uFFFD")
}
