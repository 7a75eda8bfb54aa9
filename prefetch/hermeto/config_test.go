package hermeto

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEnv(t *testing.T) {
	c := &BuildConfig{Variables: []Variable{{"A", "${output_dir}/x y"}, {"B", "$A/b"}, {"C", "file://${B}$$ $unknown ${"}}}
	got, err := c.Env("/o", "env")
	if want := "export A='/o/x y'\nexport B='/o/x y/b'\nexport C='file:///o/x y/b$ $unknown ${'\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	got, err = c.Env("/o", "json")
	if err != nil || !strings.HasPrefix(string(got), `[{"name":"A","value":"/o/x y"},`) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := c.Env("/o", "xml"); err == nil {
		t.Error("a format that there is not")
	}
	c.Variables = []Variable{{"A", "$B"}, {"B", "$A"}}
	if _, err := c.Env("/o", "env"); err == nil || !strings.Contains(err.Error(), "names itself") {
		t.Errorf("a circle: got %v", err)
	}
	for in, want := range map[string]string{"": "''", "a'b": `'a'"'"'b'`, "a/b:c": "a/b:c"} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestInject(t *testing.T) {
	dir := t.TempDir()
	project := filepath.Join(t.TempDir(), "p", ".cargo", "config.toml")
	write(t, dir, map[string]string{
		"deps/rpm/x86_64/baseos/repodata/repomd.xml": "", "deps/rpm/x86_64/unaffiliated/x": "", "deps/rpm/x86_64/file": "", "deps/rpm/empty/file": "",
	})
	c := &BuildConfig{
		Files:   []ProjectFile{{project, "x = \"${output_dir}/y\" # $$z $other\n"}},
		Options: &Options{RPM: &RPMOptions{DNF: map[string]map[string]any{"baseos": {"gpgcheck": 0, "priority": "5"}}}},
	}
	wrote, err := c.Inject(dir, "/at a", "hermeto")
	if err != nil || len(wrote) != 2 {
		t.Fatal(wrote, err)
	}
	for name, want := range map[string]string{
		project: "x = \"/at a/y\" # $z $other\n",
		dir + "/deps/rpm/x86_64/repos.d/hermeto.repo": "[baseos]\nbaseurl = file:///at%20a/deps/rpm/x86_64/baseos\ngpgcheck = 0\npriority = 5\n\n" +
			"[unaffiliated]\nbaseurl = file:///at%20a/deps/rpm/x86_64/unaffiliated\ngpgcheck = 1\nname = Packages unaffiliated with an official repository\n\n",
	} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: got %q, %v\nwant %q", name, b, err, want)
		}
	}
	c.Options.RPM.DNF["baseos"]["x"] = "a\n[evil]"
	if _, err := c.Inject(dir, "/at", "hermeto"); err == nil {
		t.Error("an option with a line break was written")
	}
	c.Files[0].Path = "relative"
	if _, err := c.Inject(dir, "/at", "hermeto"); err == nil {
		t.Error("a relative path was written to")
	}
}
