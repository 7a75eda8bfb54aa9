package sandbox

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

func TestParseMounts(t *testing.T) {
	const text = "36 35 98:0 /mnt1 /with\\040blank rw,noatime,nodev master:1 - ext3 /dev/root rw,errors=continue\n" +
		"22 27 0:21 / /proc rw,relatime - proc proc rw\n"
	got, err := parseMounts(iotest.HalfReader(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Target != "/proc" || got[1].Target != "/with blank" || strings.Join(got[1].Flags, ",") != "nodev,rw" {
		t.Errorf("got %+v", got)
	}
	if _, err := parseMounts(strings.NewReader("1 2 3\n")); err == nil {
		t.Error("half a line is no error")
	}
	if _, err := parseMounts(iotest.ErrReader(unix.EIO)); !errors.Is(err, unix.EIO) {
		t.Errorf("error %v; want the reader's", err)
	}
}

func TestParseInterfaces(t *testing.T) {
	const head = "Inter-|   Receive\n face |bytes\n"
	got, err := parseInterfaces(strings.NewReader(head + "  lo: 84 1 0 0 0 0 0 0 84 1 0 0 0 0 0 0\neth0:  7 1 0 0 0 0 0 0    9 1 0 0 0 0 0 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Interface{{Name: "eth0", RxBytes: 7, TxBytes: 9}, {Name: "lo"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"eth0: 1\n", "eth0: x 1 0 0 0 0 0 0 9\n", "eth0\n"} {
		if _, err := parseInterfaces(strings.NewReader(head + bad)); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parseMounts(strings.NewReader(text))
		_, _ = parseInterfaces(strings.NewReader(text))
		_, _ = parseConfinement(strings.NewReader(text))
	})
}

func FuzzAddress(f *testing.F) {
	f.Add([]byte{2, 0, 0, 80, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{10, 0, 0, 80, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Add([]byte("\x01\x00/run/s\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2 {
			return
		}
		_ = unixPath(b)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_UNIX} {
			if a, ok := inetAddress(family, b); ok && !a.IsValid() {
				t.Errorf("family %d, %x: address %v", family, b, a)
			}
		}
	})
}

func TestLoopback(t *testing.T) {
	for a, want := range map[string]bool{
		"127.0.0.1": true, "127.255.0.9": true, "0.0.0.0": true, "::1": true, "::": true, "::ffff:127.0.0.1": true,
		"192.0.2.1": false, "::ffff:192.0.2.1": false, "fe80::1": false, "224.0.0.1": false, "255.255.255.255": false,
	} {
		if got := isLoopback(netip.MustParseAddr(a)); got != want {
			t.Errorf("isLoopback(%s) = %v", a, got)
		}
	}
}

func TestCutDescriptor(t *testing.T) {
	for name, want := range map[string]struct {
		fd   int32
		rest string
		ok   bool
	}{
		"/proc/self/fd/7":          {7, "", true},
		"/proc/thread-self/fd/7/x": {7, "x", true},
		"/dev/fd/0//x/y":           {0, "x/y", true},
		"/proc/self/cwd":           {unix.AT_FDCWD, "", true},
		"/proc/self/cwd/../x":      {unix.AT_FDCWD, "../x", true},
		"/proc/self/cwdx":          {0, "", false},
		"/proc/self/fd/x":          {0, "", false},
		"/proc/self/fd/-1":         {-1, "", false},
		"/proc/1/fd/7":             {0, "", false},
	} {
		if fd, rest, ok := cutDescriptor(name); fd != want.fd || rest != want.rest || ok != want.ok {
			t.Errorf("%s: %d, %q, %v; want %+v", name, fd, rest, ok, want)
		}
	}
}

func TestExplain(t *testing.T) {
	settings := map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "1\n", "/proc/sys/user/max_user_namespaces": "0\n"}
	err := explain(unix.ENOSPC, func(name string) ([]byte, error) {
		if s, ok := settings[name]; ok {
			return []byte(s), nil
		}
		return nil, fs.ErrNotExist
	})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != "user.max_user_namespaces=0" || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "user.max_user_namespaces=0") {
		t.Errorf("got %v", err)
	}
	filtered := func(name string) ([]byte, error) {
		if name == "/proc/self/status" {
			return []byte("Name:\tx\nSeccomp:\t2\n"), nil
		}
		return nil, fs.ErrNotExist
	}
	for errno, want := range map[error]string{unix.EPERM: "operation not permitted, under a seccomp filter", unix.ENOSYS: "function not implemented, under a seccomp filter"} {
		if err := explain(errno, filtered); !errors.As(err, &refused) || refused.Reason != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// Too many processes, or too little memory, is no refusal.
	for _, errno := range []error{unix.EAGAIN, unix.ENOMEM} {
		if err := explain(errno, filtered); err != errno {
			t.Errorf("got %v", err)
		}
	}
}

func TestPIDMaxPerNamespace(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.44-x": true, "6.14-rc1": true, "7.0": true, "6.13.9": false, "6.1.0-39-amd64": false, "5.14.0-503.el9": false, "": false, "x.y": false,
	} {
		if got := pidMaxPerNamespace(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}
