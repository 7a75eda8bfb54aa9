package solve

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// needTool skips a test where a program is absent, or fails it where tools
// are required.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skipf("no %s", name)
	}
}

// writeRepo writes a repository of lines, and of modules where there are any,
// with its repomd.xml.
func writeRepo(t *testing.T, dir, text, modules string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "repodata"), 0o755); err != nil {
		t.Fatal(err)
	}
	repomd := `<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision>`
	for _, f := range []struct{ kind, xml string }{{"primary", primaryXML(t, text)}, {"filelists", filelistsXML(t, text)}, {"modules", modules}} {
		if f.xml == "" {
			continue
		}
		h := sha256.Sum256([]byte(f.xml))
		repomd += fmt.Sprintf(`<data type="%s"><checksum type="sha256">%s</checksum><location href="repodata/%s.xml"/><timestamp>1</timestamp><size>%d</size></data>`,
			f.kind, hex.EncodeToString(h[:]), f.kind, len(f.xml))
		if err := os.WriteFile(filepath.Join(dir, "repodata", f.kind+".xml"), []byte(f.xml), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "repodata/repomd.xml"), []byte(repomd+"</repomd>\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// askDNF returns what dnf would install, as lines returns it; nothing where it
// finds a problem.
func askDNF(t *testing.T, root string, repos map[string]string, weak, best bool, specs []string) []string {
	t.Helper()
	bit := map[bool]string{true: "1", false: "0"}
	args := []string{"--installroot=" + filepath.Join(root, "root"), "--releasever=9", "--forcearch=x86_64", "--noplugins",
		"--setopt=reposdir=/dev/null", "--setopt=cachedir=" + filepath.Join(root, "cache"), "--setopt=logdir=" + root,
		"--setopt=install_weak_deps=" + bit[weak], "--setopt=best=" + bit[best], "--setopt=gpgcheck=0"}
	for _, id := range []string{"main", "extra"} {
		args = append(args, "--repofrompath="+id+",file://"+repos[id])
	}
	cmd := exec.Command("dnf", append(append(args, "install", "--assumeno"), specs...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "COLUMNS=200")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run() // ends with 1 in any case
	var pkgs []string
	table, _, _ := strings.Cut(out.String(), "\nSkipping packages")
	for l := range strings.Lines(table) {
		if f := strings.Fields(l); len(f) >= 4 && repos[f[3]] != "" {
			pkgs = append(pkgs, fmt.Sprintf("%s-%s.%s@%s", f[0], f[2], f[1], f[3]))
		}
	}
	if len(pkgs) == 0 && !strings.Contains(out.String(), "Error: ") {
		t.Fatalf("dnf %v: %v\n%s", specs, err, &out)
	}
	slices.Sort(pkgs)
	return pkgs
}

const dnfMain = library + `
multi-1-1.x86_64 Requires: multilib(x86-64)
multilib-1-1.x86_64 Provides: multilib(x86-64) = 1-1
multilib-1-1.i686
only32-1-1.i686
mixed-1-1.x86_64 Requires: only32, multilib
ifelse-1-1.noarch Requires: (lib < 2 if docs else dash)
unless-1-1.noarch Conflicts: (bash unless dash)
cap1-1-1.noarch Provides: cap = 1
cap2-1-1.noarch Provides: cap = 2
usecap-1-1.noarch Requires: cap | Suggests: cap1
usecap2-1-1.noarch Requires: (cap >= 1 with cap < 2)
kernel-1-1.x86_64
kernel-2-1.x86_64
loop-a-1-1.noarch Requires: loop-b
loop-b-1-1.noarch Requires: loop-a | Recommends: (docs if lib)
plugin-1-1.noarch Supplements: (loop-a and lib)
tilde-1~rc1-1.noarch
tilde-1-1.noarch
epoch-1:1-1.noarch
epoch-9-1.noarch
`

const dnfExtra = `
lib-3-1.x86_64
broken-3-1.x86_64
docs-1-1.noarch
`

// TestDNF asks dnf itself.
func TestDNF(t *testing.T) {
	needTool(t, "dnf")
	dir := t.TempDir()
	repos := map[string]string{"main": filepath.Join(dir, "main"), "extra": filepath.Join(dir, "extra")}
	writeRepo(t, repos["main"], dnfMain, "")
	writeRepo(t, repos["extra"], dnfExtra, "")
	p, err := NewPool([]Repo{textRepo(t, "main", dnfMain, nil), textRepo(t, "extra", dnfExtra, nil)}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	for i, request := range []string{
		"app", "app dash", "gone", "left right", "needs-broken", "needs-old lib", "multi", "mixed", "multilib.i686",
		"ifelse", "ifelse docs", "unless bash", "usecap", "usecap2", "kernel-1 kernel-2", "loop-a lib", "tilde", "epoch", "epoch-9",
		"/usr/share/data", "lib-1*", "cap*", "docs lib-2", "nosuch",
	} {
		weak, best := i%2 == 0, i%3 == 0
		specs := strings.Fields(request)
		want := askDNF(t, dir, repos, weak, best, specs)
		var got []string
		s, err := p.Solve(Request{Specs: specs, WeakDeps: weak, Best: best})
		if err == nil {
			got = lines(s)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s (weak %v, best %v): got %v (%v), dnf says %v", request, weak, best, got, err, want)
		}
	}
}
