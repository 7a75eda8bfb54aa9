package main

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build/vm"
)

func TestFreeMemory(t *testing.T) {
	const meminfo = "MemTotal:       24676292 kB\nMemFree:         1000 kB\nMemAvailable:    4000000 kB\n"
	for _, tt := range []struct {
		name, meminfo, limit, used string
		want                       int64
		err                        string
	}{
		{name: "no cgroup", meminfo: meminfo, want: 4000000 << 10},
		{name: "no limit", meminfo: meminfo, limit: "max\n", used: "1000\n", want: 4000000 << 10},
		{name: "limit", meminfo: meminfo, limit: "1073741824\n", used: "73741824\n", want: 1000000000},
		{name: "wide limit", meminfo: meminfo, limit: "107374182400\n", used: "1\n", want: 4000000 << 10},
		{name: "over the limit", meminfo: meminfo, limit: "10\n", used: "20\n", want: 0},
		{name: "old kernel", meminfo: "MemTotal: 1 kB\n", err: "no MemAvailable"},
		{name: "nonsense", meminfo: "MemAvailable: many kB\n", err: "invalid syntax"},
		{name: "no /proc", err: "not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := vm.FreeMemory(func(name string) ([]byte, error) {
				s := map[string]string{"/proc/meminfo": tt.meminfo, "/sys/fs/cgroup/memory.max": tt.limit, "/sys/fs/cgroup/memory.current": tt.used}[name]
				if s == "" {
					return nil, fs.ErrNotExist
				}
				return []byte(s), nil
			})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %d, %v, want %d", got, err, tt.want)
			}
		})
	}
}

func TestKernelAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"5.14.0-427.el9.x86_64": true, "5.13.99": false, "6.1.0-13-amd64": true, "4.18.0-553.el8": false, "strange": true,
	} {
		if got := kernelAtLeast(release, 5, 14); got != want {
			t.Errorf("%s: got %t, want %t", release, got, want)
		}
	}
}

// A folder on a file system whose programs do not run is no place to build.
func TestDoctorNoexec(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, "size=1m,nr_inodes=100"); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("mounting needs root")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	look := func(want int64) finding {
		var d doctor
		d.folder("output folder", dir+"/not/yet/there", want)
		return d.findings[0]
	}
	if f := look(1); f.State != wrong || !strings.Contains(f.Text, "may not be run") {
		t.Errorf("noexec: %+v", f)
	}
	if err := unix.Mount("none", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if f := look(1); f.State != lesser || !strings.Contains(f.Text, "files more") {
		t.Errorf("few inodes: %+v", f)
	}
	if f := look(2 << 20); f.State != lesser || !strings.Contains(f.Advice, "2.0 MiB") {
		t.Errorf("little space: %+v", f)
	}
	if f := look(0); f.State != found {
		t.Errorf("store: %+v", f)
	}
	if err := unix.Mount("none", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if f := look(1); f.State != wrong || !strings.Contains(f.Text, "may not be written") {
		t.Errorf("read-only: %+v", f)
	}
}
