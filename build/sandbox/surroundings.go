package sandbox

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Surroundings are other circumstances than those that every command finds, for
// finding out what a command depends on. The zero value changes nothing. They
// loosen nothing that confines the command.
type Surroundings struct {
	Hostname string `json:"hostname,omitempty"` // in place of the constant
	// User is the user and group that the command runs as in place of 0, without
	// capabilities. What installs packages cannot do without these.
	User int `json:"user,omitempty"`
	// Umask is in place of 022.
	Umask int `json:"umask,omitempty"`
	// Env is added to DefaultEnv and takes precedence over it, Spec.Env over both.
	Env []string `json:"env,omitempty"`
	// CPUs is how many the command is told that it may use (sched_getaffinity(2)),
	// more than there are as well; what it is told elsewhere is the machine's.
	CPUs int `json:"cpus,omitempty"`
	// Reversed has folders list their files in reverse, as far as one answer of
	// getdents64(2) goes: with the C library some 1000 files.
	Reversed bool `json:"reversedFolders,omitempty"`
}

// Fixed tells whether nothing is changed of what the package promises to be the
// same in every sandbox. How many CPUs there are, and in which order folders list
// their files, is the machine's.
func (s *Surroundings) Fixed() bool {
	return s.Hostname == "" && s.User == 0 && s.Umask == 0 && len(s.Env) == 0
}

// Usual tells whether nothing at all is changed.
func (s *Surroundings) Usual() bool { return s.Fixed() && s.CPUs == 0 && !s.Reversed }

func (s *Surroundings) hostname() string {
	if s.Hostname == "" {
		return Hostname
	}
	return s.Hostname
}

func (s *Surroundings) umask() int {
	if s.Umask == 0 {
		return 0o022
	}
	return s.Umask
}

// evidence is s, or nil where it changes nothing.
func (s *Surroundings) evidence() *Surroundings {
	if s.Usual() {
		return nil
	}
	return s
}

// surroundingCalls are those by which Surroundings are kept up.
func surroundingCalls() []call {
	return []call{
		{nr: unix.SYS_SCHED_GETAFFINITY, name: "sched_getaffinity", rule: notifyAlways(), decide: (*listener).affinity, when: ifCPUs},
		{nr: unix.SYS_GETDENTS64, name: "getdents64", rule: notifyAlways(), decide: (*listener).reversed, when: ifReversed},
	}
}

// maxCPUs is the largest number of CPUs that can be told.
const maxCPUs = 1024

// affinity answers with the first CPUs, as many as the command is to see.
func (l *listener) affinity(r *request) answer {
	size := (l.cpus + 63) / 64 * 8
	if r.args[1] < uint64(size) || r.args[1]%8 != 0 {
		return fail(unix.EINVAL)
	}
	mask := make([]byte, size)
	for cpu := range l.cpus {
		mask[cpu/8] |= 1 << (cpu % 8)
	}
	if a := r.put(r.args[2], mask); a.errno != 0 {
		return a
	}
	return answer{value: int64(size)}
}

// maxListing bounds one answer of getdents64, in bytes. Programs that give more
// room than this get as much.
const maxListing = 1 << 20

// reversed carries out getdents64 on the caller's own descriptor, whose position
// moves with it, and hands the entries over last first.
func (l *listener) reversed(r *request) answer {
	fd, err := r.share(r.arg(0))
	if err != nil {
		return carryOut() // no folder, or no right to look: the kernel says it
	}
	defer unix.Close(fd)
	b := make([]byte, min(uint64(uint32(r.args[2])), maxListing))
	n, err := unix.Getdents(fd, b)
	if err != nil {
		return failWith(err)
	}
	if a := r.put(r.args[1], reverseListing(b[:n])); a.errno != 0 {
		return a
	}
	return answer{value: int64(n)}
}

// reverseListing turns the entries of a getdents64 answer round. The positions
// stay where they were: the last one leads on to the next answer.
func reverseListing(b []byte) []byte {
	const offPosition, offLength, minEntry = 8, 16, 19 // struct linux_dirent64 (getdents(2))
	var entries [][]byte
	var positions []uint64
	for rest := b; len(rest) > 0; {
		if len(rest) < minEntry {
			return b
		}
		n := int(binary.LittleEndian.Uint16(rest[offLength:]))
		if n < minEntry || n > len(rest) {
			return b
		}
		entries = append(entries, rest[:n])
		positions = append(positions, binary.LittleEndian.Uint64(rest[offPosition:]))
		rest = rest[n:]
	}
	slices.Reverse(entries)
	out := slices.Concat(entries...)
	at := 0
	for i, e := range entries {
		binary.LittleEndian.PutUint64(out[at+offPosition:], positions[i])
		at += len(e)
	}
	return out
}

// parseProcess finds the process of a thread in its /proc/PID/status (proc(5)).
func parseProcess(r io.Reader) (int, error) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		if value, ok := strings.CutPrefix(sc.Text(), "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, errors.Join(errors.New("there is no Tgid"), sc.Err())
}

// share is a descriptor of the caller's, with the position that both then have.
func (r *request) share(fd int32) (int, error) {
	pid, err := readFile(fmt.Sprintf("/proc/%d/status", r.pid), parseProcess)
	if err != nil {
		return -1, err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(process)
	if !r.valid() {
		return -1, unix.ENOENT
	}
	return unix.PidfdGetfd(process, int(fd), 0)
}
