package lock

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/digest"
)

func packInput(t *testing.T, base, rel string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := PackInput(&b, base, rel); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPackInput(t *testing.T) {
	base := writeFiles(t, t.TempDir(), map[string]string{
		"root/a/b/c": "c", "root/a/b/run*": "#!", "root/a.conf": "conf", "root/link": "->a.conf", "root/x y": "blank", "plain/a": "a",
	})
	if !bytes.Equal(packInput(t, base, "root"), pack(t, filepath.Join(base, "root"))) {
		t.Error("a folder without an owners file is not packed as Pack does")
	}
	owners := "# a comment\n\n/a 0750 root 5 # and one more\n/a/* 0700 - agent\n/a/b/run 4755 - - cap_net_raw=ep cap_chown+i\n/*.conf - 4294967294 wheel\n/link - svc svc\n/x?y 000 - -\n/a/b/c 0600 - -\n"
	writeFiles(t, base, map[string]string{"root.owners": owners})
	var got strings.Builder
	for r := tar.NewReader(bytes.NewReader(packInput(t, base, "root"))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%c %s %o %d:%d %s:%s %q\n", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.Uname, h.Gname, h.PAXRecords[CapabilityRecord]+h.PAXRecords[KeepRecord])
	}
	want := `0 a.conf 644 4294967294:0 :wheel ""
5 a/ 750 0:5 root: ""
5 a/b/ 700 0:0 :agent "owner"
0 a/b/c 600 0:0 : ""
0 a/b/run 4755 0:0 : "\x01\x00\x00\x02\x00 \x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
2 link 777 0:0 svc:svc ""
0 x y 0 0:0 : ""
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	// Beside the project's own folder nothing is the project's.
	writeFiles(t, filepath.Dir(base), map[string]string{filepath.Base(base) + ".owners": "nonsense\n"})
	if !bytes.Equal(packInput(t, base, "."), pack(t, base)) {
		t.Error("the project's folder has an owners file")
	}
}

func TestOwnersErrors(t *testing.T) {
	for text, want := range map[string]string{
		"/a 0644 root":                  "root.owners:1: got 3 words; want PATH MODE OWNER GROUP [CAPABILITIES]",
		"#\n/a 644 root root\n/b - - -": "root.owners:3: /b is not in root, or git ignores it",
		"/a/* - - -":                    "root.owners:1: /a/* is not in root, or git ignores it",
		"/ - - -":                       "root.owners:1: / is not in root, or git ignores it",
		"a - - -":                       `root.owners:1: path "a": want an absolute one, such as /etc/agent.conf`,
		"/a/ - - -":                     `root.owners:1: path "/a/": want an absolute one, such as /etc/agent.conf`,
		"/[ - - -":                      `root.owners:1: path "/[": syntax error in pattern`,
		"/a 0888 - -":                   `root.owners:1: mode "0888": want three or four octal digits, or -`,
		"/a 10644 - -":                  `root.owners:1: mode "10644": want three or four octal digits, or -`,
		"/a - Root -":                   `root.owners:1: "Root" is not the name or the number of a user or group`,
		"/a - - 4294967296":             `root.owners:1: "4294967296" is not the name or the number of a user or group`,
		"/a - - - cap_nothing=ep":       `root.owners:1: capabilities "cap_nothing=ep": "cap_nothing" is no capability`,
		"/link 0644 - -":                "root.owners:1: /link is a symbolic link, which has an owner and no mode",
		"/d - - - cap_chown=p":          "root.owners:1: /d is a folder, which has no capabilities",
	} {
		base := writeFiles(t, t.TempDir(), map[string]string{"root/a": "a", "root/link": "->a", "root/d/e": "", "root.owners": text + "\n"})
		if err := PackInput(io.Discard, base, "root"); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	base := writeFiles(t, t.TempDir(), map[string]string{"root/a": "a", "root.owners": strings.Repeat("#\n", maxOwners)})
	if err := PackInput(io.Discard, base, "root"); err == nil || !strings.Contains(err.Error(), "more than the 1048576 bytes") {
		t.Errorf("got %v", err)
	}
}

// TestOwnersAreLocked changes the owners file of an overlay that is locked.
func TestOwnersAreLocked(t *testing.T) {
	base := writeFiles(t, t.TempDir(), map[string]string{"root/a": "a", "root.owners": "/a 0600 - -\n"})
	in, err := PackedInput(base, "root")
	if err != nil {
		t.Fatal(err)
	}
	l := &Lock{Manifest: digest.Of(nil), Inputs: []Input{in}}
	if err := Check(l, l.Manifest, base); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"/a 0640 - -\n", ""} {
		writeFiles(t, base, map[string]string{"root.owners": text})
		if err := Check(l, l.Manifest, base); err == nil || !strings.Contains(err.Error(), "root has changed") {
			t.Errorf("%q: got %v", text, err)
		}
	}
	if err := os.Remove(filepath.Join(base, "root.owners")); err != nil {
		t.Fatal(err)
	}
	if err := Check(l, l.Manifest, base); err == nil {
		t.Error("the owners file is gone, and the lock still answers")
	}
}

func FuzzParseOwners(f *testing.F) {
	f.Add("# a comment\n/a 0750 root 5 # and one more\n/a/* 0700 - agent\n")
	f.Add("/a/b/run 4755 - - cap_net_raw=ep cap_chown+i\n")
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := parseOwners("o", strings.NewReader(s))
		for _, l := range lines {
			if err != nil || l.mode > 0o7777 || strings.HasPrefix(l.pattern, "/") && l.pattern != "/" {
				t.Errorf("%q: %+v, %v", s, l, err)
			}
		}
	})
}

// TestOwnersDirty compares the owners file with the commit that an overlay is
// said to be of.
func TestOwnersDirty(t *testing.T) {
	dir := writeFiles(t, t.TempDir(), map[string]string{"sub/root/a": "a", "sub/root.owners": "/a 0600 - -\n", "sub/other/a": "a"})
	runGit(t, dir, "init", "-q")
	runGit(t, dir, "add", "-A")
	runGit(t, dir, "commit", "-q", "-m", "one")
	want := func(what string, dirty bool) {
		t.Helper()
		r := newResolver(Options{Dir: filepath.Join(dir, "sub"), Manifest: &Manifest{}})
		if err := r.tree("root", Use{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := r.inputs[KindTree+"/root"].Tree; got == nil || got.Dirty != dirty {
			t.Errorf("%s: got %+v", what, got)
		}
	}
	want("clean", false)
	writeFiles(t, dir, map[string]string{"sub/root.owners": "/a 0640 - -\n"})
	want("changed", true)
	if err := os.Remove(filepath.Join(dir, "sub/root.owners")); err != nil {
		t.Fatal(err)
	}
	want("removed", true)
	if dirty, err := ownersDirty(filepath.Join(dir, "sub/other")); dirty || err != nil {
		t.Errorf("none in the folder, none in the commit: %v, %v", dirty, err)
	}
	writeFiles(t, dir, map[string]string{"sub/other.owners": "#\n"})
	if dirty, err := ownersDirty(filepath.Join(dir, "sub/other")); !dirty || err != nil {
		t.Errorf("not committed: %v, %v", dirty, err)
	}
}
