package vm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// User is who runs a build in a machine where the caller is root.
const User = 1000

// OwnPath tells whether a path is none that the machine has for itself.
func OwnPath(p string) bool { return !inKernel(p) }

// CheckProgram is a *DynamicError where this program cannot run in a machine.
func CheckProgram() error {
	f, _, err := program()
	if err != nil {
		return err
	}
	return f.Close()
}

// FreeMemory is how many bytes this process and its children can have: what
// the machine has left, or the container.
func FreeMemory(read func(string) ([]byte, error)) (int64, error) {
	b, err := read("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	free := int64(-1)
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "MemAvailable:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading /proc/meminfo: %w", err)
			}
			free = kib << 10
		}
	}
	if free < 0 {
		return 0, errors.New("/proc/meminfo has no MemAvailable")
	}
	number := func(name string) (int64, bool) {
		b, err := read("/sys/fs/cgroup/" + name)
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return n, err == nil // "max" is no limit
	}
	limit, limited := number("memory.max")
	used, known := number("memory.current")
	if limited && known {
		free = min(free, max(limit-used, 0))
	}
	return free, nil
}
