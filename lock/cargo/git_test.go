package cargo

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// missing skips a test that wants a tool; where tools are required it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}

const id40 = "0123456789abcdef0123456789abcdef01234567"

func TestGit(t *testing.T) {
	for source, want := range map[string]Git{
		"git+https://e.org/x#" + id40:                                    {URL: "https://e.org/x", Commit: id40},
		"git+https://e.org/x.git?branch=main#" + id40:                    {URL: "https://e.org/x.git", Kind: "branch", Ref: "main", Commit: id40},
		"git+https://e.org/x?branch=a/b#" + id40:                         {URL: "https://e.org/x", Kind: "branch", Ref: "a/b", Commit: id40},
		"git+https://e.org/x?branch=a%2Fb%2Bc#" + id40:                   {URL: "https://e.org/x", Kind: "branch", Ref: "a/b+c", Commit: id40},
		"git+https://e.org/x?tag=v1.0#" + id40:                           {URL: "https://e.org/x", Kind: "tag", Ref: "v1.0", Commit: id40},
		"git+ssh://git@e.org/x?rev=0123456#" + id40:                      {URL: "ssh://git@e.org/x", Kind: "rev", Ref: "0123456", Commit: id40},
		"git+https://e.org/x?ref=old#" + id40:                            {URL: "https://e.org/x", Kind: "branch", Ref: "old", Commit: id40},
		"git+https://e.org/x?rev=refs%2Fpull%2F1%2Fhead&other=y#" + id40: {URL: "https://e.org/x", Kind: "rev", Ref: "refs/pull/1/head", Commit: id40},
	} {
		got, err := Read(lock("version = 4\n" + entry("x", "1.0.0", source, "")))
		if err != nil || !reflect.DeepEqual(got.Git, []Git{want}) || len(got.Crates) != 0 {
			t.Errorf("%s: got %+v, %v, want %+v", source, got, err, want)
		}
	}
	for source, want := range map[string]string{
		"git+https://e.org/x":                             "want a commit",
		"git+https://e.org/x#0123":                        "want a commit",
		"git+https://e.org/x?branch=-x#" + id40:           "not a name of git",
		"git+https://e.org/x?branch=a..b#" + id40:         "not a name of git",
		"git+https://e.org/x?tag=%zz#" + id40:             "not a name of git",
		"git+https://e.org/x?tag=a%0Ab#" + id40:           "not a name of git",
		"git+e.org/x#" + id40:                             "not an address",
		"git+https://user:hunter2@e.org/x?tag=v1#" + id40: "a password in its address",
	} {
		_, err := Read(lock("version = 4\n" + entry("x", "1.0.0", source, "")))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %s", source, err, want)
		}
	}
	// Several packages of one repository; a patch that nothing uses.
	source := "git+https://e.org/x?branch=main#" + id40
	got, err := Read(lock("version = 4\n" + entry("app", "0.1.0", "", "") + "dependencies = [\n \"a\",\n]\n" + entry("a", "1.0.0", CratesIO, sumA) +
		"dependencies = [\n \"one\",\n]\n" + entry("one", "1.0.0", source, "") + entry("two", "1.0.0", source, "") +
		"\n[[patch.unused]]\nname = \"p\"\nversion = \"1.0.0\"\nsource = \"git+https://e.org/p#" + id40 + "\"\n" +
		"\n[[patch.unused]]\nname = \"q\"\nversion = \"1.0.0\"\nsource = \"" + CratesIO + "\"\n"))
	want := []Git{{URL: "https://e.org/p", Commit: id40}, {URL: "https://e.org/x", Kind: "branch", Ref: "main", Commit: id40, By: "a 1.0.0"}}
	if err != nil || !reflect.DeepEqual(got.Git, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// TestBy finds who depends on a crate, by each way to name a dependency.
func TestBy(t *testing.T) {
	deps := func(names ...string) string {
		return "dependencies = [\n \"" + strings.Join(names, "\",\n \"") + "\",\n]\n"
	}
	got, err := Read(lock("version = 4\n" + entry("app", "0.1.0", "", "") + deps("mid", "twice 1.0.0") + entry("local", "0.1.0", "", "") + deps("late") +
		entry("mid", "1.0.0", CratesIO, sumA) + deps("twice 2.0.0", "reg 1.0.0 ("+alt+")", "mid") +
		entry("twice", "1.0.0", CratesIO, sumA) + entry("twice", "2.0.0", CratesIO, sumB) + deps("reg 1.0.0 ("+CratesIO+")", "late") +
		entry("reg", "1.0.0", CratesIO, sumA) + entry("reg", "1.0.0", alt, sumB) + entry("late", "1.0.0", CratesIO, sumA) + entry("alone", "1.0.0", CratesIO, sumA)))
	if err != nil {
		t.Fatal(err)
	}
	by := make(map[string]string)
	for _, c := range got.Crates {
		by[c.Name+" "+c.Version+" "+c.Source] = c.By
	}
	want := map[string]string{
		"mid 1.0.0 " + CratesIO: "", "twice 1.0.0 " + CratesIO: "", "late 1.0.0 " + CratesIO: "", "twice 2.0.0 " + CratesIO: "mid 1.0.0",
		"reg 1.0.0 " + alt: "mid 1.0.0", "reg 1.0.0 " + CratesIO: "twice 2.0.0", "alone 1.0.0 " + CratesIO: "",
	}
	if !reflect.DeepEqual(by, want) {
		t.Errorf("got %q, want %q", by, want)
	}
}

// TestCargoReads has cargo write locks of each version that it can write, and
// read all; it must see the packages that Read sees.
func TestCargoReads(t *testing.T) {
	if out, err := exec.Command("cargo", "--version").CombinedOutput(); err != nil {
		missing(t, "no cargo: "+string(out))
	}
	repo := filepath.Join(t.TempDir(), "repo")
	run := func(dir, home, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CARGO_HOME="+home, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v", name, args, err)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(dir string, files map[string]string) {
		t.Helper()
		for name, s := range files {
			name = filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := exec.LookPath("git"); err != nil {
		missing(t, err.Error())
	}
	write(repo, map[string]string{"Cargo.toml": "[package]\nname = \"dep\"\nversion = \"1.0.0\"\n", "src/lib.rs": ""})
	run(repo, "", "git", "init", "-q")
	run(repo, "", "git", "add", "-A")
	run(repo, "", "git", "-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-q", "-m", "x")
	run(repo, "", "git", "branch", "a/b+c")
	commit := run(repo, "", "git", "rev-parse", "HEAD")
	for rust, want := range map[string]struct {
		version int
		branch  string
	}{"1.40": {1, "a/b+c"}, "1.45": {2, "a/b+c"}, "1.60": {3, "a/b+c"}, "1.85": {4, "a/b+c"}} {
		dir, home := t.TempDir(), t.TempDir()
		write(dir, map[string]string{
			"Cargo.toml": "[package]\nname = \"app\"\nversion = \"0.1.0\"\nrust-version = \"" + rust + "\"\n\n[dependencies]\ndep = { git = \"file://" + repo + "\", branch = \"" + want.branch + "\" }\n",
			"src/lib.rs": "",
		})
		run(dir, home, "cargo", "generate-lockfile")
		got, err := Read(os.DirFS(dir))
		wantGit := []Git{{URL: "file://" + repo, Kind: "branch", Ref: want.branch, Commit: commit}}
		if err != nil || !reflect.DeepEqual(got.Git, wantGit) || got.Version != want.version {
			t.Errorf("rust %s: got %+v, %v, want version %d and %+v", rust, got, err, want.version, wantGit)
			continue
		}
		var meta struct {
			Packages []struct {
				Name   string
				Source *string
			}
		}
		if err := json.Unmarshal([]byte(run(dir, home, "cargo", "metadata", "--locked", "--offline", "--format-version=1")), &meta); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(meta.Packages, func(p struct {
			Name   string
			Source *string
		}) bool {
			return p.Name == "dep"
		})
		if i < 0 || meta.Packages[i].Source == nil {
			t.Fatalf("cargo metadata: %+v", meta)
		}
		if g, err := parseGit(*meta.Packages[i].Source, 3); err != nil || !reflect.DeepEqual(g, wantGit[0]) {
			t.Errorf("rust %s: cargo has %s: %+v, %v, want %+v", rust, *meta.Packages[i].Source, g, err, wantGit[0])
		}
	}
}

func TestFolders(t *testing.T) {
	for _, tt := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"Cargo.toml": "[dependencies]\na = { path = \"a\" }\n", "a/Cargo.toml": "[dependencies]\nb = { path = \"../b\" }\n", "b/Cargo.toml": ""}, ""},
		{map[string]string{"Cargo.toml": "[workspace]\nmembers = [\"crates/*\"]\n", "crates/x/Cargo.toml": "[dependencies]\ny = { path = \"../y\" }\n", "crates/y/Cargo.toml": "[package]\nworkspace = \"../..\"\n"}, ""},
		{map[string]string{"Cargo.toml": "[dependencies]\na = { path = \"../a\" }\n"}, `Cargo.toml: dependencies a: "../a" is outside of the source folder; lock the folder that has both`},
		{map[string]string{"Cargo.toml": "[dependencies]\na = { path = \"/a\" }\n"}, `"/a" is outside`},
		{map[string]string{"Cargo.toml": "[target.'cfg(unix)'.build-dependencies]\na = { path = \"../a\" }\n"}, `target.cfg(unix).build-dependencies a: "../a" is outside`},
		{map[string]string{"Cargo.toml": "[patch.crates-io]\na = { path = \"../a\" }\n"}, `patch.crates-io a: "../a" is outside`},
		{map[string]string{"Cargo.toml": "[workspace.dependencies]\na = { path = \"../a\" }\n"}, `workspace.dependencies a: "../a" is outside`},
		{map[string]string{"Cargo.toml": "[package]\nworkspace = \"..\"\n"}, `package.workspace: ".." is outside`},
		{map[string]string{"Cargo.toml": "[workspace]\nmembers = [\"../x\"]\n"}, `member "../x": outside`},
		{map[string]string{"Cargo.toml": "[workspace]\nmembers = [\"a\"]\n", "a/Cargo.toml": "[dependencies]\nx = { path = \"../../x\" }\n"}, `a/Cargo.toml: dependencies x: "../../x" is outside`},
		{map[string]string{"Cargo.toml": "[dependencies]\na = { path = \"a\" }\n"}, "Cargo.toml: dependencies a: there is no a/Cargo.toml"},
		{map[string]string{}, "reading Cargo.toml"},
		{map[string]string{"Cargo.toml": "x"}, "Cargo.toml: toml"},
	} {
		fsys := fstest.MapFS{}
		for name, s := range tt.files {
			fsys[name] = &fstest.MapFile{Data: []byte(s)}
		}
		if _, err := Folders(fsys, "."); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want %s", tt.files, err, tt.want)
		}
	}
}

// TestFoldersBeside: a source's top may be a folder of a larger tree.
func TestFoldersBeside(t *testing.T) {
	fsys := fstest.MapFS{}
	for name, s := range map[string]string{
		"a/Cargo.toml": "[dependencies]\nb = { path = \"../b\" }\nc = { path = \"c\" }\n", "b/Cargo.toml": "", "a/c/Cargo.toml": "[dependencies]\nx = { path = \"../../../x\" }\n",
	} {
		fsys[name] = &fstest.MapFile{Data: []byte(s)}
	}
	if _, err := Folders(fsys, "a"); err == nil || !strings.Contains(err.Error(), `a/c/Cargo.toml: dependencies x: "../../../x" is outside`) {
		t.Errorf("got %v", err)
	}
	fsys["a/c/Cargo.toml"].Data = nil
	if got, err := Folders(fsys, "./a"); err != nil || !reflect.DeepEqual(got, []string{"a", "b", "a/c"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzFolders(f *testing.F) {
	f.Add("[dependencies]\na = { path = \"a\" }\n[workspace]\nmembers = [\"a*\", \"[\"]\n")
	f.Add("[patch.x]\na = 1\n[target.x.dependencies]\na = { path = 1 }\n")
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = Folders(fstest.MapFS{"Cargo.toml": &fstest.MapFile{Data: []byte(s)}, "a/Cargo.toml": &fstest.MapFile{}}, ".")
	})
}
