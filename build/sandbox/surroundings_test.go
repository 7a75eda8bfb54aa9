package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSurroundings has ordinary programs say what they find.
func TestSurroundings(t *testing.T) {
	const script = `hostname; id -u; id -g; umask; echo "$TZ $HOME $X"; nproc; ls -U /given; touch /left/file; echo rest | tee /left/more; ls -U /usr | wc -l`
	run := func(around Surroundings) ([]string, *Result, string) {
		s := hostRoot(t, "given", "left")
		given, left := tempDir(t), tempDir(t)
		for _, name := range []string{"a", "b", "c", "d"} {
			if err := os.WriteFile(filepath.Join(given, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s.Mounts = append(s.Mounts, Mount{Source: given, Target: "/given"}, Mount{Source: left, Target: "/left", Writable: true})
		s.Env, s.Around = []string{"X=spec"}, around
		r, out := sh(t, s, script)
		if r.ExitCode != 0 {
			t.Fatalf("exit code %d\n%s", r.ExitCode, out)
		}
		return strings.Fields(out), r, left
	}
	usual, r, _ := run(Surroundings{})
	if r.Evidence.Around != nil || !slices.Equal(usual[:4], []string{Hostname, "0", "0", "0022"}) {
		t.Errorf("as usual: got %q, %+v", usual, r.Evidence.Around)
	}
	around := Surroundings{Hostname: "elsewhere", User: 1234, Umask: 0o077, Env: []string{"TZ=NPT-5:45", "HOME=/nowhere", "X=around"}, CPUs: 70, Reversed: true}
	got, r, left := run(around)
	listing := slices.Clone(usual[8:12])
	slices.Reverse(listing)
	want := slices.Concat([]string{"elsewhere", "1234", "1234", "0077", "NPT-5:45", "/nowhere", "spec", "70"}, listing, usual[12:])
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if e := r.Evidence; e.Around == nil || e.Around.Fixed() || e.Hostname != "elsewhere" || !slices.Contains(e.Environment, "TZ=NPT-5:45") {
		t.Errorf("the evidence has %+v", e.Around)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(left, "file"), &st); err != nil || st.Mode&0o777 != 0o600 || int(st.Uid) != os.Geteuid() {
		t.Errorf("what it left: %o of user %d, %v", st.Mode, st.Uid, err)
	}
	s := hostRoot(t)
	s.Around = around
	if r, out := sh(t, s, `grep CapEff /proc/self/status | grep -q 0000000000000000 && ! chown 0:0 /tmp && find /usr/share | wc -l`); r.ExitCode != 0 {
		t.Errorf("another user has capabilities: %s", out)
	}
	s.Around = Surroundings{CPUs: maxCPUs + 1}
	s.Args = []string{"true"}
	if _, err := Run(t.Context(), s); err == nil || !strings.Contains(err.Error(), "CPUs") {
		t.Errorf("too many CPUs: got %v", err)
	}
}

// TestReverseListing keeps every entry, the positions in their order, and what is
// no listing as it is.
func TestReverseListing(t *testing.T) {
	dir, err := os.Open("/usr/bin")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	b := make([]byte, 32<<10)
	n, err := unix.Getdents(int(dir.Fd()), b)
	if err != nil {
		t.Fatal(err)
	}
	b = b[:n]
	_, _, names := unix.ParseDirent(b, -1, nil)
	turned := reverseListing(slices.Clone(b))
	_, _, got := unix.ParseDirent(turned, -1, nil)
	slices.Reverse(got)
	if len(names) == 0 || !slices.Equal(got, names) {
		t.Errorf("got %d names, want %d in reverse", len(got), len(names))
	}
	if !slices.Equal(reverseListing(slices.Clone(turned)), b) {
		t.Error("turned twice it is another listing")
	}
	for _, bad := range [][]byte{{}, {1, 2, 3}, make([]byte, 24)} {
		if !slices.Equal(reverseListing(slices.Clone(bad)), bad) {
			t.Errorf("%v is no listing, and was changed", bad)
		}
	}
}

func FuzzReverseListing(f *testing.F) {
	f.Add(make([]byte, 24))
	f.Add(append(make([]byte, 16), 24, 0, 4, 'a', 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := reverseListing(slices.Clone(b)); len(got) != len(b) {
			t.Errorf("%d bytes became %d", len(b), len(got))
		}
	})
}
