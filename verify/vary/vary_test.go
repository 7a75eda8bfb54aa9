package vary

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// state is what a process finds itself under.
type state struct {
	Env              []string
	Umask            int
	UID              int
	Groups           []int
	Hostname, Domain string
	Release          string
	Persona          string
	Dir              string
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
	var uts unix.Utsname
	unix.Uname(&uts)
	s := state{Env: os.Environ(), Umask: unix.Umask(0), UID: os.Getuid(), Domain: unix.ByteSliceToString(uts.Domainname[:]), Release: unix.ByteSliceToString(uts.Release[:])}
	s.Groups, _ = os.Getgroups()
	s.Hostname, _ = os.Hostname()
	s.Dir, _ = os.Getwd()
	persona, _ := os.ReadFile("/proc/self/personality")
	s.Persona = strings.TrimSpace(string(persona))
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

func settings(t *testing.T) Settings {
	return Settings{Vary: Names(), Base: t.TempDir(), Like: t.TempDir(), Need: 1, Euid: os.Geteuid(), CPUs: runtime.NumCPU(), FSType: FSType, Release: "6.12"}
}

func newConditions(t *testing.T, s Settings) *Conditions {
	t.Helper()
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(c.Dir) })
	if err := os.Chmod(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestConditions compares what a process finds with what the conditions say.
func TestConditions(t *testing.T) {
	c := newConditions(t, settings(t))
	got := run(t, c)
	if got.Umask != 0o077 || got.Dir != c.Dir || !strings.Contains(c.Dir, " ") {
		t.Errorf("umask %#o in %s, want 077 in %s", got.Umask, got.Dir, c.Dir)
	}
	slices.Sort(got.Env)
	if want := slices.Sorted(slices.Values(c.Env)); !slices.Equal(got.Env, want) || !slices.Contains(got.Env, "TZ="+zone) {
		t.Errorf("environment %v, want %v", got.Env, want)
	}
	if varied := c.Varied(); slices.Contains(varied, Kernel) != strings.HasPrefix(got.Release, "2.6.") || slices.Contains(varied, ASLR) != (got.Persona == "00060000") {
		t.Errorf("kernel %s, persona %s; varied are %v", got.Release, got.Persona, varied)
	}
	if !c.Around.Fixed() {
		t.Errorf("the steps find %+v", c.Around)
	}
	if os.Geteuid() != 0 {
		return
	}
	if got.UID != UID || len(got.Groups) > 1 || got.Hostname != c.Hostname || got.Domain != c.Hostname+".example" {
		t.Errorf("user %d, groups %v, host %q; want user %d alone on %q", got.UID, got.Groups, got.Hostname, UID, c.Hostname)
	}
	if here, _ := os.Hostname(); here == c.Hostname {
		t.Errorf("the caller's host name became %q", here)
	}
}

// TestOneAtATime changes nothing but what is asked for.
func TestOneAtATime(t *testing.T) {
	plain := func(inside bool, vary ...string) (state, *Conditions) {
		s := settings(t)
		s.Vary, s.Inside = vary, inside
		c := newConditions(t, s)
		got := run(t, c)
		got.Dir, got.Env = "", slices.DeleteFunc(got.Env, func(kv string) bool { return strings.Contains(kv, c.Dir) })
		return got, c
	}
	base, c := plain(true)
	if len(c.Varied()) > 0 || base.UID != os.Geteuid() || base.Umask != 0o022 {
		t.Fatalf("nothing asked for: %+v, %v", base, c.Varied())
	}
	if text, err := c.AroundJSON(); text != "" || err != nil {
		t.Fatalf("nothing asked for: %q, %v", text, err)
	}
	// What the steps find otherwise, with Inside.
	for name, want := range map[string]string{
		Environment: `{"env":["CAISSON_VARIED=yes"]}`, BuildPath: "", Kernel: "", ASLR: "", Time: "",
		CPUs: `{"cpus":` + strconv.Itoa(runtime.NumCPU()+1) + `}`, UserGroup: `{"user":51234}`, FileOrdering: `{"reversedFolders":true}`,
		DomainHost: `{"hostname":"elsewhere"}`, Home: `{"env":["HOME=/nonexistent"]}`, Locales: `{"env":["LANG=tr_TR.UTF-8","LC_ALL=tr_TR.UTF-8"]}`,
		ExecPath: `{"env":["PATH=/nonexistent:/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"]}`,
		Timezone: `{"env":["TZ=NPT-5:45"]}`, Umask: `{"umask":63}`,
	} {
		got, c := plain(true, name)
		if text, err := c.AroundJSON(); text != want || err != nil {
			t.Errorf("%s: the steps find %s, %v; want %s", name, text, err, want)
		}
		if changed := !reflect.DeepEqual(got, base); changed != (slices.Contains(c.Varied(), name) && name != BuildPath && name != FileOrdering) &&
			(name != UserGroup && name != DomainHost || os.Geteuid() == 0) {
			t.Errorf("%s: got %+v, which is %+v without", name, got, base)
		}
		for _, said := range c.Said {
			if want := slices.Contains(c.Varied(), said.Name) && name != BuildPath; said.Reached != want {
				t.Errorf("%s: %+v, want reached %v", name, said, want)
			}
		}
	}
}

// TestSaid wants every condition named once, and a reason where it is not
// varied.
func TestSaid(t *testing.T) {
	same := func(string) string { return "ext4" }
	for _, s := range []Settings{
		{Euid: 0, CPUs: 4, FSType: FSType, Need: 1},
		{Euid: 1000, CPUs: 1, FSType: same, Need: 1},
		{Euid: 1000, CPUs: 1, FSType: same, Need: 1, Inside: true},
		{Euid: 1000, CPUs: 2, FSType: FSType, Need: 1 << 60},
	} {
		s.Base, s.Vary = t.TempDir(), Names()
		s.Like = s.Base
		c := newConditions(t, s)
		var names []string
		seen := map[string]Condition{}
		for _, said := range c.Said {
			if said.Detail == "" {
				t.Errorf("%q is said without a word", said.Name)
			}
			names = append(names, said.Name)
			seen[said.Name] = said
		}
		if !slices.Equal(names, Names()) {
			t.Errorf("got %v, want %v", names, Names())
		}
		root := s.Euid == 0 && os.Geteuid() == 0
		for name, want := range map[string]bool{
			BuildPath: true, Timezone: true, Umask: true, Locales: true, UserGroup: root || s.Inside, DomainHost: root || s.Inside,
			CPUs: true, Time: false, FileOrdering: true,
		} {
			if got := seen[name]; got.Varied != want {
				t.Errorf("%s: %+v, want varied %v", name, got, want)
			}
		}
		if s.Need == 1<<60 && (!c.Around.Reversed || !strings.HasPrefix(c.Dir, s.Base)) {
			t.Errorf("there is no other file system with so much space: %s", c.Dir)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ list, want string }{
		{"all", strings.Join(Names(), ",")},
		{"+all", strings.Join(Names(), ",")},
		{"-all", ""},
		{"umask", "umask"},
		{"umask,home", "home,umask"},
		{"-all,+umask", "umask"},
		{"all,-umask,-time", strings.Join(slices.DeleteFunc(Names(), func(n string) bool { return n == Umask || n == Time }), ",")},
		{"-umask, -time", strings.Join(slices.DeleteFunc(Names(), func(n string) bool { return n == Umask || n == Time }), ",")},
		{"+umask", strings.Join(Names(), ",")},
	} {
		got, err := Parse(tt.list)
		if err != nil || strings.Join(got, ",") != tt.want {
			t.Errorf("%q: got %v, %v; want %s", tt.list, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "hostname", "+-umask", "umask,,home", "--umask"} {
		if got, err := Parse(bad); err == nil || !strings.Contains(err.Error(), "domain_host") {
			t.Errorf("%q: got %v, %v", bad, got, err)
		}
	}
}
