package selinux

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// from reads the files of a map.
func from(files map[string]string) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
}

// in reads the files of a folder.
func in(dir string) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) }
}

func contexts(t testing.TB, files map[string]string) *Contexts {
	t.Helper()
	c, err := Read(from(files))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const modes = "dir 040755, file 0100644, link 0120777, char 020600, block 060600, pipe 010600, socket 0140600"

func TestLabel(t *testing.T) {
	c := contexts(t, map[string]string{
		"file_contexts": `# a comment
/.*			default
/usr(/.*)?	usr
/usr/bin/.*	--	bin
/usr/bin/s[hx]	--	shell
/usr/bin/sh		exact
/usr/bin/.*sh	--	late
/tmp/.*	<<none>>
/tmp/keep	kept
/a|/b/c	either
/etc/a\.b	--	dotted
/etc/x\.?y	xy
/opt/(.*/)?lib\.so	-l	so
`,
		"file_contexts.homedirs":  "/home/[^/]*\t-d\thome\n/home/[^/]*/.*\thomefile\n",
		"file_contexts.local":     "/usr/bin/local\t--\tlocal\n/etc/.*\\.conf\tconf\n",
		"file_contexts.subs_dist": "/bin /usr/bin\n/srv/os /\n",
		"file_contexts.subs":      "/export/home /home\n/mnt/bin /bin\n",
	})
	const (
		file, dir, link = 0o100644, 0o40755, 0o120777
	)
	for _, tt := range []struct {
		path string
		mode uint32
		want string
	}{
		{"/", dir, "default"}, {"/x\ny", file, "default"}, {"/usr", dir, "usr"}, {"/usrx", dir, "default"},
		{"/usr/bin/ls", file, "bin"}, {"/usr/bin/ls", link, "usr"}, {"/usr/bin/sh", file, "exact"}, {"/usr/bin/sx", file, "shell"},
		{"/usr/bin/zsh", file, "late"}, {"/bin/sh", file, "exact"}, {"/bin", dir, "usr"}, {"/mnt/bin/sh", file, "exact"}, {"/binary", file, "default"},
		{"/tmp/x", file, ""}, {"/tmp/keep", file, "kept"}, {"/tmp", dir, "default"}, {"/a", file, "either"}, {"/b/c", file, "either"},
		{"/etc/a.b", file, "dotted"}, {"/etc/a.b", dir, "default"}, {"/etc/axb", file, "default"}, {"/etc/xy", file, "xy"}, {"/etc/x.y", file, "xy"},
		{"/opt/lib.so", link, "so"}, {"/opt/a/b/lib.so", link, "so"}, {"/opt/lib.so", file, "default"},
		{"/home/me", dir, "home"}, {"/home/me", file, "default"}, {"/home/me/x", file, "homefile"}, {"/export/home/me", dir, "home"},
		{"/usr/bin/local", file, "local"}, {"/etc/my.conf", file, "conf"}, {"/srv/os/usr/bin/sh", file, "exact"}, {"/srv/os", dir, "default"},
	} {
		got, ok := c.Label(tt.path, tt.mode)
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%s %o: got %q, %t, want %q", tt.path, tt.mode, got, ok, tt.want)
		}
	}
}

func TestReadErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"file_contexts", "/a b\n/b(c d\n", "file_contexts:2: error parsing regexp: missing closing )"},
		{"file_contexts", "/(?!a)b c\n", "file_contexts:1: error parsing regexp"},
		{"file_contexts", "/a -x c\n", `file_contexts:1: "-x" is not a type of file`},
		{"file_contexts", "\n#\n/a\n", "file_contexts:3: 1 words; want"},
		{"file_contexts", "/a\\ c\n", "trailing backslash"},
		{"file_contexts", "/a c\x00\n", "is not a context"},
		{"file_contexts", "/" + strings.Repeat("a", 1<<17), "token too long"},
		{"file_contexts.subs", "/a b\n", "file_contexts.subs:1: want two absolute paths"},
	} {
		files := map[string]string{"file_contexts": ""}
		files[tt.name] = tt.text
		if _, err := Read(from(files)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
	if _, err := Read(from(nil)); err == nil {
		t.Error("no file_contexts: no error")
	}
}

// policy is the folder of a real policy, if the machine has one.
func policy(t testing.TB) string {
	t.Helper()
	for _, dir := range []string{"/etc/selinux/default/contexts/files", "/etc/selinux/targeted/contexts/files"} {
		if _, err := os.Stat(filepath.Join(dir, "file_contexts")); err == nil {
			return dir
		}
	}
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatal("no SELinux policy is installed")
	}
	t.Skip("no SELinux policy is installed (selinux-policy-default)")
	return ""
}

// randomPaths are paths near those that a policy names: its own patterns with
// their metacharacters replaced.
func randomPaths(t testing.TB, dir string, n int) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "file_contexts"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewSource(1))
	all := bytes.Split(b, []byte("\n"))
	change := strings.NewReplacer(`\.`, ".", `(/.*)?`, "/some/thing", `.*`, "any", `[^/]*`, "name", `[^/]+`, "one", `(.*/)?`, "in/", `\`, "", "?", "", "(", "", ")", "", "[0-9]", "7", "+", "")
	var paths []string
	for range n {
		p, _, _ := strings.Cut(string(all[r.Intn(len(all))]), "\t")
		p = change.Replace(p)
		switch r.Intn(5) {
		case 0:
			p = filepath.Dir(p)
		case 1:
			p += "/more"
		case 2:
			p += "x"
		}
		if strings.HasPrefix(p, "/") && !strings.ContainsAny(p, "|[]{}*\n ") {
			paths = append(paths, p)
		}
	}
	return paths
}

// matchpathcon, of the library that SELinux systems use, says the same of real
// files and of paths near the policy's own, of every type of file.
func TestMatchpathcon(t *testing.T) {
	dir := policy(t)
	tool, err := exec.LookPath("matchpathcon")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("matchpathcon is not installed (selinux-utils)")
	}
	c, err := Read(in(dir))
	if err != nil {
		t.Fatal(err)
	}
	paths := randomPaths(t, dir, 1500)
	for _, top := range []string{"/etc", "/usr/bin", "/usr/sbin", "/var/lib", "/usr/lib/systemd"} {
		err := filepath.WalkDir(top, func(name string, _ fs.DirEntry, err error) error {
			if err == nil && len(paths) < 4000 && !strings.ContainsAny(name, "\n\t") {
				paths = append(paths, name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	compared := 0
	for _, m := range strings.Split(modes, ", ") {
		name, text, _ := strings.Cut(m, " ")
		var mode uint32
		if _, err := fmt.Sscanf(text, "%o", &mode); err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(paths); at += 500 {
			part := paths[at:min(at+500, len(paths))]
			args := append([]string{"-f", filepath.Join(dir, "file_contexts"), "-m", name}, part...)
			out, _ := exec.Command(tool, args...).Output() // it fails where one path has no label
			want := map[string]string{}
			for _, l := range strings.Split(string(out), "\n") {
				if p, label, ok := strings.Cut(l, "\t"); ok {
					want[p] = label
				}
			}
			for _, p := range part {
				got, ok := c.Label(p, mode)
				w := want[p]
				if !ok {
					got = "<<none>>"
				}
				if compared++; got != w {
					t.Errorf("%s %s: got %q, matchpathcon says %q", name, p, got, w)
				}
			}
		}
	}
	t.Logf("%d labels compared", compared)
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("/usr(/.*)?\t-d\tsystem_u:object_r:usr_t:s0\n/a\\.b\t<<none>>\n"), "/usr/lib")
	f.Add([]byte("/(a|b)+c{1,3}\tx\n"), "/abc")
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		c, err := Read(from(map[string]string{"file_contexts": string(b)}))
		if err == nil {
			c.Label(path, 0o100644)
		}
	})
}

func BenchmarkLabel(b *testing.B) {
	dir := policy(b)
	paths := randomPaths(b, dir, 12000)
	for b.Loop() {
		c, err := Read(in(dir))
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range paths {
			c.Label(p, 0o100644)
		}
	}
	b.ReportMetric(float64(len(paths)), "files")
}
