package vary

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// state is what a process finds itself under.
type state struct {
	Env      []string
	Umask    int
	UID      int
	Groups   []int
	CPUs     int
	Hostname string
	Dir      string
}

func TestMain(m *testing.M) {
	Init()
	if len(os.Args) == 2 && os.Args[1] == "tell" {
		tell()
		return
	}
	os.Exit(m.Run())
}

func tell() {
	var set unix.CPUSet
	unix.SchedGetaffinity(0, &set)
	s := state{Env: os.Environ(), Umask: unix.Umask(0), UID: os.Getuid(), CPUs: set.Count()}
	s.Groups, _ = os.Getgroups()
	s.Hostname, _ = os.Hostname()
	s.Dir, _ = os.Getwd()
	json.NewEncoder(os.Stdout).Encode(s)
}

// run has a copy of this program tell what it finds under conditions.
func run(t *testing.T, c *Conditions) state {
	t.Helper()
	cmd, err := c.Command(context.Background(), "tell")
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var s state
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return s
}

// TestConditions compares what a process finds with what the conditions say.
func TestConditions(t *testing.T) {
	c, err := New(Settings{Base: t.TempDir(), Need: 1, Euid: os.Geteuid(), CPUs: runtime.NumCPU(), FSType: FSType})
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(c.Dir)
	if err := os.Chmod(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	got := run(t, c)
	if got.Umask != 0o077 || got.Dir != c.Dir {
		t.Errorf("umask %#o in %s, want 077 in %s", got.Umask, got.Dir, c.Dir)
	}
	slices.Sort(got.Env)
	if want := slices.Sorted(slices.Values(c.Env)); !slices.Equal(got.Env, want) {
		t.Errorf("environment %v, want %v", got.Env, want)
	}
	if c.CPUs > 0 && got.CPUs != c.CPUs {
		t.Errorf("%d CPUs, want %d", got.CPUs, c.CPUs)
	}
	if os.Geteuid() != 0 {
		return
	}
	if got.UID != UID || len(got.Groups) > 1 || got.Hostname != c.Hostname {
		t.Errorf("user %d, groups %v, host %q; want user %d alone on %q", got.UID, got.Groups, got.Hostname, UID, c.Hostname)
	}
	if here, _ := os.Hostname(); here == c.Hostname {
		t.Errorf("the caller's host name became %q", here)
	}
}

// TestSaid wants every condition named once, and a reason where it is not
// varied.
func TestSaid(t *testing.T) {
	same := func(string) string { return "ext4" }
	for _, s := range []Settings{
		{Euid: 0, CPUs: 4, FSType: FSType, Need: 1},
		{Euid: 1000, CPUs: 1, FSType: same, Need: 1},
		{Euid: 1000, CPUs: 2, FSType: FSType, Need: 1 << 60},
	} {
		s.Base = t.TempDir()
		c, err := New(s)
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(c.Dir)
		seen := map[string]Condition{}
		for _, said := range c.Said {
			if _, ok := seen[said.Name]; ok || said.Detail == "" {
				t.Errorf("%q is said twice, or without a word", said.Name)
			}
			seen[said.Name] = said
		}
		for name, want := range map[string]bool{
			"folder": true, "timezone": true, "umask": true, "locale": true, "user": s.Euid == 0, "hostname": s.Euid == 0,
			"cpus": s.CPUs > 1, "time": false, "kernel": false,
		} {
			if got, ok := seen[name]; !ok || got.Varied != want {
				t.Errorf("%s: varied %v, want %v", name, got.Varied, want)
			}
		}
		if s.Need == 1<<60 && (seen["fileSystem"].Varied || !strings.HasPrefix(c.Dir, s.Base)) {
			t.Errorf("there is no other file system with so much space: %s", c.Dir)
		}
	}
}
