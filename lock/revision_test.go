package lock

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestUpgraded upgrades locks as the Caissons of former revisions wrote them:
// nothing but the revision is another.
func TestUpgraded(t *testing.T) {
	names, err := filepath.Glob("testdata/revisions/*.lock")
	if err != nil || len(names) != Revision-1 {
		t.Fatalf("%d locks of former revisions, %v; want one of each of %d", len(names), err, Revision-1)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(name, b)
		if err != nil {
			t.Fatal(err)
		}
		up, err := l.Upgraded()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Format(up)
		if err != nil {
			t.Fatal(err)
		}
		old, now, _ := strings.Cut(string(b), "\n  \"revision\": ")
		_, now, _ = strings.Cut(now, ",")
		if want := old + "\n  \"revision\": 3," + now; string(got) != want {
			t.Errorf("%s: upgraded, it is\n%s", name, got)
		}
		if up.Changes() != nil || len(l.Changes()) == 0 {
			t.Errorf("%s: changes %v, and %v when it is upgraded", name, l.Changes(), up.Changes())
		}
	}
}

// TestChanges wants a table in order, with something of each revision, and what
// it says of locks that have and have not what it is about.
func TestChanges(t *testing.T) {
	at := 2
	for _, c := range changes() {
		if c.revision != at && c.revision != at+1 {
			t.Errorf("revision %d follows %d", c.revision, at)
		}
		at = c.revision
	}
	if at != Revision {
		t.Errorf("nothing says what revision %d changed", Revision)
	}
	rpm := func(set, name, version string) Input {
		return Input{Kind: KindRPM, Name: name + "-" + version + "-1.x86_64", For: []Use{{Set: set}}, RPM: &RPM{Name: name, Version: version}}
	}
	for _, c := range []struct {
		name string
		lock Lock
		want string // of each change, in order
	}{
		{"empty", Lock{}, "yes maybe maybe no no maybe no"},
		{"policy", Lock{Inputs: []Input{rpm("root+debug", "selinux-policy-targeted", "38")}}, "yes maybe yes no no maybe no"},
		{"policy elsewhere", Lock{Inputs: []Input{rpm("tools", "selinux-policy", "38")}}, "yes maybe maybe no no maybe no"},
		{"modules", Lock{Sets: []Set{{Name: "initrd+a", Modules: []string{"erofs"}, Scriptlets: ScriptletsSkip}}}, "yes maybe maybe maybe no maybe no"},
		{"tools alone", Lock{Sets: []Set{{Name: "tools", Modules: []string{"erofs"}}}}, "yes maybe maybe no no maybe no"},
		{"scriptlets", Lock{Sets: []Set{{Name: "root"}}}, "yes maybe maybe no maybe maybe no"},
		{"old stub", Lock{Inputs: []Input{rpm("tools", "systemd-boot-unsigned", "257.9")}}, "yes maybe maybe no no no no"},
		{"new stub", Lock{Inputs: []Input{rpm("tools", "systemd-boot-efi", "262~rc1")}}, "yes maybe maybe no no yes no"},
		{"scratch", Lock{Image: Image{Scratch: &Scratch{Encrypt: EncryptKey}}}, "yes maybe maybe no no maybe yes"},
		{"open scratch", Lock{Image: Image{Scratch: &Scratch{Encrypt: EncryptNo}}}, "yes maybe maybe no no maybe no"},
		{"scratch of a variant", Lock{Variants: []Variant{{Name: "v", Image: Image{Scratch: &Scratch{Encrypt: EncryptKey}}}}}, "yes maybe maybe no no maybe yes"},
	} {
		c.lock.Revision = 1
		var got []string
		for _, d := range c.lock.Changes() {
			got = append(got, string(d.Concerns))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: got %s, want %s", c.name, s, c.want)
		}
	}
	if l := (&Lock{Revision: 2}); slices.ContainsFunc(l.Changes(), func(c Change) bool { return c.Revision != 3 }) {
		t.Errorf("of revision 2: %v", l.Changes())
	}
}

// TestLaterRevision reads locks of a Caisson that is to come: with what is known
// here, and with what is not.
func TestLaterRevision(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.lock")
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("\"revision\": 3,"), []byte("\"revision\": 4,"), 1)
	l, err := Parse("l", b)
	if err != nil {
		t.Fatal(err)
	}
	later := new(RevisionError)
	if _, err := l.Upgraded(); !errors.As(err, &later) || later.Revision != 4 {
		t.Errorf("got %v", err)
	}
	if l.Changes() != nil {
		t.Errorf("changes of a later lock: %v", l.Changes())
	}
	b = bytes.Replace(b, []byte("  \"epoch\""), []byte("  \"unheard\": 1,\n  \"epoch\""), 1)
	if _, err := Parse("l", b); !errors.As(err, &later) || !strings.Contains(err.Error(), `unknown field "unheard"`) {
		t.Errorf("got %v", err)
	}
}
