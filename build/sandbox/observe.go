package sandbox

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// observer collects the evidence, from outside.
type observer struct {
	evidence Evidence
	pid      int // process 1, in the caller's numbering
	features features
	shown    map[FileID]Shown
	told     func(Deed)
	cpus     int
	record   *record
	files    *fileTable
	listener *listener
}

func newObserver(s Spec, pid int) *observer {
	return &observer{
		evidence: Evidence{
			Step: s.Name, Command: slices.Clone(s.Args), Dir: s.Dir, Environment: s.environment(), Hostname: s.Around.hostname(), Around: s.Around.evidence(),
			Volatile: Volatile{UID: unix.Geteuid(), GID: unix.Getegid(), Kernel: kernelRelease()},
		},
		pid: pid, features: s.features(), shown: s.Shown, told: s.Told, cpus: s.Around.CPUs, record: newRecord(), files: newFileTable(s.Files),
	}
}

// namespaceKinds are the namespaces that a sandbox must have for itself.
func namespaceKinds() []string { return []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} }

// namespaceID is the inode number behind a link such as "net:[4026531840]".
func namespaceID(dir, kind string) (uint64, error) {
	l, err := os.Readlink(dir + "/ns/" + kind)
	if err != nil {
		return 0, err
	}
	id, ok := strings.CutPrefix(l, kind+":[")
	if !ok {
		return 0, fmt.Errorf("%s/ns/%s is %q", dir, kind, l)
	}
	return strconv.ParseUint(strings.TrimSuffix(id, "]"), 10, 64)
}

// listen starts to answer the filter's notifications.
func (o *observer) listen(fd int) error {
	if fd < 0 {
		return errors.New("process 1 sent no listener")
	}
	l, err := newListener(fd, o.pid, o.features, o.record, o.files)
	if err != nil {
		return err
	}
	l.shown, l.told, l.cpus = o.shown, o.told, o.cpus
	o.listener = l
	go l.serve()
	return nil
}

// stopListening waits until the last notification was answered.
func (o *observer) stopListening() {
	if o.listener != nil {
		o.listener.close()
	}
}

// ready looks at the sandbox as it is when the command is about to start.
func (o *observer) ready(canaries []Canary, host *abstractSocket) error {
	e := &o.evidence
	e.Canaries = canaries
	if err := host.reachable(); err != nil {
		return fmt.Errorf("the abstract socket that the canary tried cannot be reached from outside either: %w", err)
	}
	for _, c := range canaries {
		if c.Errno == "" {
			return fmt.Errorf("the sandbox leaks: canary %q got through to %q (%s)", c.Name, c.Destination, c.Layer)
		}
	}
	proc := fmt.Sprint("/proc/", o.pid)
	e.Volatile.Inside, e.Volatile.Outside = map[string]uint64{}, map[string]uint64{}
	for _, kind := range namespaceKinds() {
		in, err := namespaceID(proc, kind)
		if err != nil {
			return fmt.Errorf("looking at the sandbox's namespaces: %w", err)
		}
		out, err := namespaceID("/proc/self", kind)
		if err != nil {
			return fmt.Errorf("looking at the caller's namespaces: %w", err)
		}
		if in == out {
			return fmt.Errorf("the sandbox shares its %s namespace with the caller", kind)
		}
		e.Volatile.Inside[kind], e.Volatile.Outside[kind] = in, out
		e.Namespaces = append(e.Namespaces, kind)
	}
	var err error
	if e.Mounts, err = readFile(proc+"/mountinfo", parseMounts); err != nil {
		return err
	}
	tid := o.listener.canaryThread()
	if e.Confinement, err = readFile(fmt.Sprintf("%s/task/%d/status", proc, tid), parseConfinement); err != nil {
		return err
	}
	if !e.Confinement.Seccomp || !e.Confinement.NoNewPrivs {
		return errors.New("the seccomp filter is not in force")
	}
	o.listener.canariesDone(e.Mounts)
	return nil
}

// commandEnded looks at what is left, while the namespaces still exist.
func (o *observer) commandEnded() error {
	interfaces, err := readFile(fmt.Sprintf("/proc/%d/net/dev", o.pid), parseInterfaces)
	o.evidence.Interfaces = interfaces
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		if i.Name != "lo" {
			return fmt.Errorf("the sandbox has a network interface %q", i.Name)
		}
	}
	return nil
}

// finish is the evidence with the record in it.
func (o *observer) finish() Evidence {
	o.record.into(&o.evidence)
	return o.evidence
}

func readFile[T any](name string, parse func(io.Reader) (T, error)) (T, error) {
	f, err := os.Open(name)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("observing the sandbox: %w", err)
	}
	defer f.Close()
	v, err := parse(f)
	if err != nil {
		return v, fmt.Errorf("reading %s: %w", name, err)
	}
	return v, nil
}

// parseMounts reads mountinfo (proc(5)).
func parseMounts(r io.Reader) ([]MountPoint, error) {
	var all []MountPoint
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 6 || len(kind) < 1 {
			return nil, fmt.Errorf("no mountinfo line: %q", sc.Text())
		}
		m := MountPoint{Target: unescape(fields[4]), Type: kind[0]}
		for _, f := range strings.Split(fields[5], ",") {
			if !strings.HasSuffix(f, "atime") {
				m.Flags = append(m.Flags, f)
			}
		}
		sort.Strings(m.Flags)
		all = append(all, m)
	}
	// Mounts on one target stay in their order: the last one is what is seen.
	slices.SortStableFunc(all, func(a, b MountPoint) int { return cmp.Compare(a.Target, b.Target) })
	return all, sc.Err()
}

// unescape undoes the kernel's \ooo for blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// parseInterfaces reads /proc/PID/net/dev: two lines of heading, then a line an
// interface, received bytes first and transmitted bytes ninth.
func parseInterfaces(r io.Reader) ([]Interface, error) {
	all := []Interface{}
	sc := bufio.NewScanner(r)
	for n := 0; sc.Scan(); n++ {
		if n < 2 {
			continue
		}
		name, counters, ok := strings.Cut(sc.Text(), ":")
		fields := strings.Fields(counters)
		if !ok || len(fields) < 9 {
			return nil, fmt.Errorf("no interface line: %q", sc.Text())
		}
		i := Interface{Name: strings.TrimSpace(name)}
		if i.Name != "lo" {
			var err1, err2 error
			i.RxBytes, err1 = strconv.ParseUint(fields[0], 10, 64)
			i.TxBytes, err2 = strconv.ParseUint(fields[8], 10, 64)
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
		}
		all = append(all, i)
	}
	sort.Slice(all, func(a, b int) bool { return all[a].Name < all[b].Name })
	return all, sc.Err()
}

// parseConfinement reads /proc/PID/status (proc(5)).
func parseConfinement(r io.Reader) (Confinement, error) {
	var c Confinement
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Seccomp":
			c.Seccomp = value == strconv.Itoa(unix.SECCOMP_MODE_FILTER)
		case "NoNewPrivs":
			c.NoNewPrivs = value == "1"
		case "CapBnd":
			bits, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return c, err
			}
			for i := range 64 {
				if bits>>i&1 == 1 {
					c.Capabilities = append(c.Capabilities, i)
				}
			}
		}
	}
	return c, sc.Err()
}
