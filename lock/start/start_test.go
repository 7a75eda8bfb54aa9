package start

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"

	"caisson/lock"
)

var update = flag.Bool("update", false, "write what is made now into testdata")

// unpack writes a case's files, but for what it wants, into a folder.
func unpack(t *testing.T, a *txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "want/") {
			continue
		}
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFrom makes the manifest and the notes of every case in testdata, which
// is a folder with files of other tools and what is wanted of them. The
// comment of a case, if it has one, is the folder to begin with, and profiles.
func TestFrom(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) < 8 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := unpack(t, a)
			words := append(strings.Fields(string(a.Comment)), "")
			d, err := From(dir, []string{filepath.Join(dir, words[0])}, slices.DeleteFunc(words[1:], func(w string) bool { return w == "" })...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := lock.ParseManifest("caisson.yaml", d.Manifest); err != nil {
				t.Errorf("%v\n%s", err, d.Manifest)
			}
			if all := fmt.Sprintf("%s%s", d.Manifest, d.Notes); strings.Contains(all, "secret123") {
				t.Errorf("a secret is told: %s", all)
			}
			var notes strings.Builder
			for _, n := range d.Notes {
				notes.WriteString(strings.ReplaceAll(n.String(), dir+"/", "") + "\n")
			}
			got := map[string]string{"want/caisson.yaml": strings.ReplaceAll(string(d.Manifest), dir+"/", ""), "want/notes": notes.String()}
			for i, f := range a.Files {
				if want, ok := got[f.Name]; ok && string(f.Data) != want {
					a.Files[i].Data = []byte(want)
					if !*update {
						t.Errorf("%s: got\n%s\nwant\n%s", f.Name, want, f.Data)
					}
				}
				delete(got, f.Name)
			}
			if len(got) > 0 && !*update {
				t.Error("the case does not say what is wanted; run with -update and look at it")
			}
			for _, n := range []string{"want/caisson.yaml", "want/notes"} {
				if text, ok := got[n]; ok {
					a.Files = append(a.Files, txtar.File{Name: n, Data: []byte(text)})
				}
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Where two folders are given, paths are relative to the manifest's.
func TestPaths(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"images/Containerfile": "FROM scratch\nCOPY a.conf /etc/a.conf\nCOPY tree /\n", "images/a.conf": "a\n", "images/tree/etc/b": "b\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, err := From(filepath.Join(dir, "podvm"), []string{filepath.Join(dir, "images", "Containerfile")})
	if err != nil {
		t.Fatal(err)
	}
	m, err := lock.ParseManifest("caisson.yaml", d.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Inputs.Files) != 1 || m.Inputs.Files[0].URL != "../images/a.conf" || len(m.Image.Overlay) != 1 || m.Image.Overlay[0] != "../images/tree" || len(d.Notes) != 0 {
		t.Errorf("got %+v, %v, %v", m.Inputs.Files, m.Image.Overlay, d.Notes)
	}
}

// A definition that its own tool would refuse is an error that names the file
// and the line.
func TestBroken(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a.ks", "lang C.UTF-8\n%packages\nbash\n", `a\.ks:2: %packages has no %end`},
		{"a.ks", "text\n%end\n", `a\.ks:2: %end, and no section is open`},
		{"a.ks", "text\n%pakages\n%end\n", `a\.ks:2: "%pakages" is no section`},
		{"a.ks", "rootpw \"x\n", `a\.ks:1: "rootpw": quotes`},
		{"mkosi.conf", "[Content]\nPackages\n", `mkosi\.conf:2: "Packages" is neither`},
		{"mkosi.conf", "Packages=a\n", `mkosi\.conf:1: .*before the first`},
		{"mkosi.conf", "[Content]\n  bash\n", `mkosi\.conf:2: a line that goes on`},
		{"Containerfile", "RUN true\n", `Containerfile:1: RUN before the first FROM`},
		{"Containerfile", "FROM a b c\n", `Containerfile:1: FROM a b c`},
		{"x.aib.yml", "name: a\n- b\n", `x\.aib\.yml:\d+: `},
		{"x.aib.yml", "- a\n", `x\.aib\.yml:1: want keys`},
		{"config.yaml", "options:\n  layer_type: base\npackges: [a]\n", `config\.yaml:3: .*packages`},
		{"config.yaml", "options:\n  layer_type: base\npackages: a\n", `config\.yaml:3: `},
		{"rpms.in.yaml", "contentOrigin: {repos: []}\npakages: [a]\n", `rpms\.in\.yaml:2: .*packages`},
		{"rpms.lock.yaml", "lockfileVersion: 2\n", `rpms\.lock\.yaml`},
		{"prefetch-input.json", `{"packages": [{"type": "gomod", "path": "/etc"}]}`, `prefetch-input\.json:1: .*below the project`},
		{"prefetch-input.json", `{"packages": [{"type": "pip"}, {"type": "x"}]}`, `prefetch-input\.json:1: .*"x" is none of`},
		{"notes.txt", "hello\n", `neither its name nor what is in it`},
		{"a.ks", "lang C.UTF-8\nlnag de\n", `a\.ks:2: "lnag" is no command`},
		{"a.ks", "lang C.UTF-8\n\x7fELF\x00", `a\.ks:2: it is no text`},
		{"mkosi.conf", "[Content]\nPackages=a\n\n\x00", `mkosi\.conf:4: it is no text`},
		{"Containerfile", "FROM a\nRUN \x00", `Containerfile:2: it is no text`},
		{"rpms.lock.yaml", "\x00", `rpms\.lock\.yaml:1: it is no text`},
		{"x.ks", strings.Repeat("#\n", maxFile), `more than the 1048576 bytes`},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, c.name)
		if err := os.WriteFile(name, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if d, err := From(dir, []string{name}); err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) {
			t.Errorf("%s %.60q: got %v, want %s", c.name, c.text, err, c.want)
			if d != nil {
				t.Logf("%s", d.Manifest)
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mkosi.conf"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "mkosi.conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "mkosi.conf.d", "again")
	if err := os.Symlink("..", loop); err != nil {
		t.Fatal(err)
	}
	if _, err := From(dir, []string{dir}); err == nil || !strings.Contains(err.Error(), "more than 8 folders deep") {
		t.Errorf("a folder that is in itself: got %v", err)
	}
	if err := os.Remove(loop); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "a.ks")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := From(dir, []string{fifo}); err == nil || !strings.Contains(err.Error(), "a.ks: not a file") {
		t.Errorf("a FIFO: got %v", err)
	}
	if _, err := From(dir, []string{dir}, "debug"); err == nil || !strings.Contains(err.Error(), `has a profile "debug"`) {
		t.Errorf("a profile that is not there: got %v", err)
	}
	if _, err := From(".", []string{"testdata/not-there"}); err == nil {
		t.Error("a file that is not there: no error")
	}
}

// A byte order mark and lines that end as DOS has them are nothing of a file;
// what a link leads out to is not taken in.
func TestForeign(t *testing.T) {
	for name, text := range map[string]string{
		"mkosi.conf": "[Content]\nPackages=one\n    two\n", "a.ks": "lang C.UTF-8\n%packages\none\ntwo\n%end\n",
		"Containerfile": "FROM fedora:41\nRUN dnf install -y one \\\n  two\n", "x.aib.yml": "content:\n  rpms: [one, two]\n",
		"config.yaml": "options:\n  layer_type: base\npackages: [one, two]\n",
	} {
		dir := t.TempDir()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte("\ufeff"+strings.ReplaceAll(text, "\n", "\r\n")), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := From(dir, []string{name})
		if err != nil {
			t.Error(err)
			continue
		}
		m, err := lock.ParseManifest("caisson.yaml", d.Manifest)
		if err != nil || !slices.Contains(m.Sets["root"].Packages, "one") || !slices.Contains(m.Sets["root"].Packages, "two") {
			t.Errorf("%s: got %q, %v, %v", name, m.Sets["root"].Packages, d.Notes, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte("FROM scratch\nCOPY passwd /etc/passwd\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "passwd")); err != nil {
		t.Fatal(err)
	}
	d, err := From(dir, []string{dir})
	if err != nil || len(d.Notes) != 1 || !strings.HasPrefix(d.Notes[0].Why, "it is a link that leads out of the folder, to /etc/passwd") {
		t.Errorf("a link that leads out: got %v, %v", d, err)
	}
}

// What is not called as usual is known by what is in it.
func TestRecognise(t *testing.T) {
	for text, want := range map[string]string{
		"%packages\n%end\n":                               "a kickstart",
		"[Distribution]\nDistribution=fedora\n":           "mkosi.conf",
		"FROM scratch\n":                                  "a Containerfile",
		"options:\n  name: x\n  layer_type: base\n":       "image-build's config.yaml",
		"packages: [a]\ncontentOrigin: {repofiles: []}\n": "rpms.in.yaml",
		"name: x\ncontent: {rpms: [a]}\n":                 "an .aib.yml",
		`[{"type": "gomod"}]`:                             "a prefetch-input",
	} {
		name := filepath.Join(t.TempDir(), "something")
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := recognise(name); err != nil || got[0].kind.what != want {
			t.Errorf("%q: got %v, %v; want %s", text, got, err, want)
		}
	}
}

// The files of real Konflux repositories, whose repository files are made by
// their pipelines: what is missing is a note.
func TestKonflux(t *testing.T) {
	const data = "../../../shared/data/konflux"
	files, err := filepath.Glob(filepath.Join(data, "*.rpms.*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("%s is not here", data)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		as := "rpms.in.yaml"
		if strings.Contains(name, ".lock.") {
			as = "rpms.lock.yaml"
		}
		if err := os.WriteFile(filepath.Join(dir, as), b, 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := From(dir, []string{dir})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := lock.ParseManifest("caisson.yaml", d.Manifest)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if as == "rpms.in.yaml" && (m.RPM.From != as || len(d.Notes) == 0) || as == "rpms.lock.yaml" && len(m.Sets["root"].Packages) < 5 {
			t.Errorf("%s: got %+v and %d packages, %v", name, m.RPM, len(m.Sets["root"].Packages), d.Notes)
		}
	}
}

// fuzz feeds one reader: it says an error, or makes a manifest that is one,
// and notes about lines that there are.
func fuzz(f *testing.F, name string, seeds ...string) {
	read := func() func(*draft, string, []byte) error {
		for _, k := range kinds() {
			if k.name != nil && k.name.MatchString(name) || k.name == nil && name == "config.yaml" {
				return k.read
			}
		}
		return nil
	}()
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		a, err := txtar.ParseFile(c)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if filepath.Ext(file.Name) == filepath.Ext(name) && !strings.HasPrefix(file.Name, "want/") {
				f.Add(file.Data)
			}
		}
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := newDraft(dir)
		if err != nil {
			t.Fatal(err)
		}
		d.at = filepath.Join(dir, name)
		if err := read(d, d.at, b); err != nil {
			return
		}
		if _, err := d.finish([]string{name}); err != nil {
			return
		}
		for _, n := range d.notes {
			if n.Line < 1 || n.Line > strings.Count(string(b), "\n")+1 || n.Why == "" || strings.Contains(n.What, "\n") {
				t.Errorf("%d lines: %q", strings.Count(string(b), "\n")+1, n)
			}
		}
	})
}

func FuzzKickstart(f *testing.F) {
	fuzz(f, "a.ks", "rootpw --lock\n%post --interpreter=/usr/bin/python3\nprint('x')\n%end\n")
}
func FuzzMkosi(f *testing.F) {
	fuzz(f, "mkosi.conf", "[Content]\nPackages=\n\ta,b\n c\nRootPassword=hashed:$6$a$b\n")
}
func FuzzContainerfile(f *testing.F) {
	fuzz(f, "Containerfile", "FROM fedora:41\nRUN dnf -y install a && systemctl enable b\nCOPY <<E /a\nx\nE\n")
}
func FuzzImageBuild(f *testing.F) {
	fuzz(f, "config.yaml", "options: {layer_type: base}\ncmds: [{cmd: 'echo x'}, x]\n")
}
func FuzzAIB(f *testing.F) {
	fuzz(f, "x.aib.yml", "content: {rpms: [a], make_dirs: [{path: /a}]}\nauth: {users: {a: {uid: 1}}}\n")
}
func FuzzPrefetchInput(f *testing.F) {
	fuzz(f, "prefetch-input.json", `[{"type": "pip"}, {"type": "gomod", "path": "a"}]`)
}
