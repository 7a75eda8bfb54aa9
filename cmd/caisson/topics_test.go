package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"

	"caisson/lock"
)

// example is a command of a page, with what the page says that it prints.
type example struct {
	section, command string
	output           []string
}

// commandsOf are the commands of a page, as topics.go says how they are set.
func commandsOf(text string) []example {
	var all []example
	section, open := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		code, isCode := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "#"):
			section, open = strings.TrimLeft(line, "# "), false
		case !isCode:
			open = false
		case strings.HasPrefix(code, "$ "):
			all, open = append(all, example{section: section, command: code[2:]}), true
		case !open: // a file, or a list
		case strings.HasPrefix(code, "  ") && len(all[len(all)-1].output) == 0:
			all[len(all)-1].command += "\n" + code[2:]
		default:
			all[len(all)-1].output = append(all[len(all)-1].output, code)
		}
	}
	return all
}

// prints tells whether the output is what the page says.
func (s *example) prints(output string) bool {
	var re strings.Builder
	for _, l := range s.output {
		if l == "…" {
			re.WriteString(`(?:[^\n]*\n)+`)
			continue
		}
		re.WriteString(strings.ReplaceAll(regexp.QuoteMeta(l), "…", "[^\n]*") + "\n")
	}
	return regexp.MustCompile(`\A` + re.String() + `\z`).MatchString(output)
}

// runExamples runs commands, one after the other, in one bash in that folder, and
// returns what is not as the page says, by section. What they print is kept in the
// folder said.
func runExamples(dir, said string, env []string, all []example) (map[string]string, error) {
	var script strings.Builder
	for i, s := range all {
		fmt.Fprintf(&script, "{ %s\n} > '%s/%d.out' 2>&1; echo $? > '%s/%d.code'\n", s.command, said, i, said, i)
	}
	c := exec.Command("bash", "-c", script.String())
	c.Dir, c.Env = dir, env
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("bash: %w\n%s", err, out)
	}
	wrong := map[string]string{}
	for i, s := range all {
		out, err := os.ReadFile(filepath.Join(said, fmt.Sprint(i)+".out"))
		if err != nil {
			return nil, err
		}
		code, err := os.ReadFile(filepath.Join(said, fmt.Sprint(i)+".code"))
		if err != nil {
			return nil, err
		}
		if string(code) != "0\n" || !s.prints(string(out)) {
			wrong[s.section] += fmt.Sprintf("$ %s\n%swants %q, exit code %s", s.command, out, s.output, code)
		}
	}
	return wrong, nil
}

// cmdExamples runs the commands of a page in the script's folder.
func cmdExamples(ts *testscript.TestScript, _ bool, args []string) {
	said := ts.MkAbs("said")
	ts.Check(os.MkdirAll(said, 0o755))
	env := append(os.Environ(), "PATH="+ts.Getenv("PATH"), "HOME="+ts.Getenv("HOME"), "XDG_CACHE_HOME="+ts.Getenv("XDG_CACHE_HOME"))
	wrong, err := runExamples(ts.MkAbs("."), said, env, commandsOf(page(args[0])))
	ts.Check(err)
	for _, section := range sortedKeys(wrong) {
		ts.Logf("%s: %s", section, wrong[section])
	}
	if len(wrong) > 0 {
		ts.Fatalf("%s.md is not as it says", args[0])
	}
}

// gateLines are the five lines of the page about CI.
func gateLines() []string {
	_, text, _ := strings.Cut(page("ci"), "\n    ")
	text, _, _ = strings.Cut(text, "\n\n")
	return strings.Split(text, "\n    ")
}

// cmdGate writes the five lines as a script.
func cmdGate(ts *testscript.TestScript, _ bool, args []string) {
	text := "set -e\n" + strings.Join(gateLines(), "\n") + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// TestGate wants five lines, and the same in each of the forms for CI systems.
func TestGate(t *testing.T) {
	want := gateLines()
	if len(want) != 5 {
		t.Fatalf("%d lines: %q", len(want), want)
	}
	forms := map[string][]string{}
	for part := range strings.SplitSeq(page("ci"), "\n## ") {
		name, text, _ := strings.Cut(part, "\n")
		var code strings.Builder
		for line := range strings.Lines(text) {
			if l, ok := strings.CutPrefix(line, "    "); ok {
				code.WriteString(l)
			}
		}
		switch name {
		case "GitHub Actions":
			var w struct {
				Jobs map[string]struct {
					Steps []struct {
						Run string
						Env map[string]string
					}
				}
			}
			must(t, yaml.Unmarshal([]byte(code.String()), &w))
			for _, s := range w.Jobs["image"].Steps {
				if s.Env != nil {
					forms[name] = strings.Split(strings.TrimSpace(s.Run), "\n")
				}
			}
		case "GitLab":
			var w map[string]struct{ Script []string }
			must(t, yaml.Unmarshal([]byte(code.String()), &w))
			forms[name] = w["image"].Script
		}
	}
	for _, name := range []string{"GitHub Actions", "GitLab"} {
		if !slices.Equal(forms[name], want) {
			t.Errorf("%s: got %q, want %q", name, forms[name], want)
		}
	}
}

// TestRefusals wants what the page for release engineers says that stages print
// in what the program says.
func TestRefusals(t *testing.T) {
	var said strings.Builder
	for _, dir := range []string{".", "../../lock", "../../prefetch", "../../build", "../../verify", "../../attest"} {
		must(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
				return err
			}
			b, err := os.ReadFile(name)
			said.Write(b)
			return err
		}))
	}
	all := regexp.MustCompile("(?m)^- `([^A-Z`][^`]*)`:? ").FindAllStringSubmatch(page("engineer"), -1)
	if len(all) < 10 {
		t.Errorf("%d refusals", len(all))
	}
	for _, m := range all {
		if !strings.HasPrefix(m[1], "caisson ") && !strings.Contains(said.String(), strings.TrimSuffix(strings.TrimSuffix(m[1], ":"), "COSIGN_PASSWORD")) {
			t.Errorf("nothing says %q", m[1])
		}
	}
	_, text, _ := strings.Cut(page("engineer"), "\n\n    version: 1\n")
	text, _, _ = strings.Cut(text, "\n\n")
	if _, err := lock.ParseManifest("engineer.md", []byte("version: 1\n"+strings.ReplaceAll(text, "    ", ""))); err == nil {
		t.Error("a manifest that is not indented is read")
	}
	if _, err := lock.ParseManifest("engineer.md", []byte("version: 1\n"+regexp.MustCompile("(?m)^    ").ReplaceAllString(text, ""))); err != nil {
		t.Error(err)
	}
}

// TestTopics wants pages whose text a terminal of 80 columns has room for, and one of
// 88 for the commands, and links to them.
func TestTopics(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	must(t, err)
	files, err := pages.ReadDir("help")
	must(t, err)
	if len(files) != len(topics) {
		t.Errorf("%d pages, %d topics", len(files), len(topics))
	}
	for _, topic := range topics {
		if !bytes.Contains(readme, []byte("(cmd/caisson/help/"+topic.name+".md)")) {
			t.Errorf("README.md has no link to %s", topic.name)
		}
		n := 0
		for line := range strings.Lines(page(topic.name)) {
			n++
			width, limit := utf8.RuneCountInString(strings.TrimRight(line, "\n")), 80
			if strings.HasPrefix(line, "    ") {
				limit = 88
			}
			if width > limit || strings.Contains(line, "\t") {
				t.Errorf("%s.md:%d: %d columns, or a tab", topic.name, n, width)
			}
		}
		text := plain(page(topic.name), false)
		if strings.Contains(text, "\n#") || strings.Contains(text, "\x1b") {
			t.Errorf("%s has marks of Markdown, or colours", topic.name)
		}
	}
}

// TestPrints is about what the pages' tests compare with.
func TestPrints(t *testing.T) {
	all := commandsOf("# A\n\n    $ one |\n        more\n    out …\n    …\n    end\n\ntext\n\n    no: command\n\n## B\n\n    $ two\n")
	if len(all) != 2 || all[0].command != "one |\n  more" || all[0].section != "A" || len(all[0].output) != 3 || all[1].section != "B" || all[1].output != nil {
		t.Fatalf("%+v", all)
	}
	for output, want := range map[string]bool{
		"out 1\nx\nend\n": true, "out 1\nx\ny\nend\n": true, "out 1\nend\n": false, "out 1\nx\nend\nmore\n": false, "": false,
	} {
		if all[0].prints(output) != want {
			t.Errorf("%q: want %t", output, want)
		}
	}
	if !all[1].prints("") || all[1].prints("x\n") {
		t.Error("what prints nothing has to print nothing")
	}
}
