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
	"caisson/verify"
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

// TestAuditor audits the folder that CAISSON_AUDIT names, which `make demo` left,
// as `caisson help auditor` says; `make e2e` does it with a folder of its own.
func TestAuditor(t *testing.T) {
	dir := os.Getenv("CAISSON_AUDIT")
	if dir == "" {
		t.Skip("CAISSON_AUDIT names no output folder; `make e2e` audits its own")
	}
	testAuditor(t, dir)
}

// testAuditor runs the commands of the auditor's page on an output folder, with
// lock, store and keys in it, and on tampered copies of it.
func testAuditor(t *testing.T, from string) {
	all := commandsOf(page("auditor"))
	if wrong := audit(t, auditFolder(t, from), all); len(wrong) > 0 {
		for s, w := range wrong {
			t.Errorf("%s: %s", s, w)
		}
		return
	}
	for _, tt := range []struct {
		name   string
		tamper func(t *testing.T, dir string)
		fails  string // the numbers of the sections that fail, all of which are run
	}{
		{"a byte of the root", flipImage("root"), "1 5"},
		{"a byte of the hash tree", flipImage("root-verity"), "1 5"},
		{"a byte of the kernel", flipImage("esp"), "1 6"},
		{"the SBOM", editFile("sbom.spdx.json", `"bash"`, `"dash"`), "7"},
		{"SBOM and statement", func(t *testing.T, dir string) {
			editFile("sbom.spdx.json", `"bash"`, `"dash"`)(t, dir)
			editFile("statements/sbom.json", `"bash"`, `"dash"`)(t, dir)
		}, "1"},
		{"the lock", editFile("caisson.lock", `"epoch": 1`, `"epoch": 2`), "2"},
		{"a package", flipPackage, "2 3"},
		{"the report", editFile("report.json", `"identical"`, `"different"`), "9"},
		{"the exceptions", editFile("exceptions.yaml", "until: 2026", "until: 2036"), "10"},
		{"another key", otherKey, "1 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := auditFolder(t, from)
			tt.tamper(t, filepath.Join(dir, "out/demo"))
			wrong := audit(t, dir, sectionsOf(all, tt.fails))
			for n := range strings.FieldsSeq(tt.fails) {
				if !slices.ContainsFunc(sortedKeys(wrong), func(s string) bool { return strings.HasPrefix(s, n+". ") }) {
					t.Errorf("section %s is as if nothing had been done; only these are not: %v", n, sortedKeys(wrong))
				}
			}
		})
	}
}

// sectionsOf are the commands of sections, by their numbers, and of those that they
// need: what sets the variables, and the disk's parts, which 5 takes out of it.
func sectionsOf(all []example, numbers string) []example {
	run := strings.Fields(numbers)
	if slices.Contains(run, "6") || slices.Contains(run, "7") {
		run = append(run, "5")
	}
	return slices.DeleteFunc(slices.Clone(all), func(s example) bool {
		n, _, numbered := strings.Cut(s.section, ". ")
		return numbered && !slices.Contains(run, n) || strings.HasPrefix(s.command, "caisson ")
	})
}

// audit runs commands of the auditor's page.
func audit(t *testing.T, dir string, all []example) map[string]string {
	t.Helper()
	said := scratch(t)
	bin, err := filepath.Abs("../../bin")
	must(t, err)
	wrong, err := runExamples(dir, said, append(os.Environ(), "HOME="+said, "TMPDIR="+said, "PATH="+bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin"), all)
	must(t, err)
	return wrong
}

// auditFolder is a copy of an output folder at out/demo, of links, with a file of
// exceptions that cosign has signed by the folder's key.
func auditFolder(t *testing.T, from string) string {
	top := scratch(t)
	dir := filepath.Join(top, "out/demo")
	must(t, os.MkdirAll(filepath.Join(dir, "statements"), 0o755))
	from, err := filepath.Abs(from)
	must(t, err)
	for _, pattern := range []string{"*", "statements/*"} {
		names, err := filepath.Glob(filepath.Join(from, pattern))
		must(t, err)
		for _, name := range names {
			if rel, _ := filepath.Rel(from, name); rel != "statements" {
				must(t, os.Symlink(name, filepath.Join(dir, rel)))
			}
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "exceptions.yaml"), []byte(exceptionsFile), 0o644))
	c := exec.Command("cosign", "sign-blob", "--yes", "--tlog-upload=false", "--key", "cosign.key", "--output-signature", "exceptions.yaml.sig", "exceptions.yaml")
	c.Dir = dir
	c.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cosign: %v\n%s", err, out)
	}
	return top
}

const exceptionsFile = `version: 1
exceptions:
  - rule: advisories
    match: "RHSA-2026:*"
    who: jane@example.com
    why: not reachable in this image
    until: 2026-12-31
`

// own makes a file a copy of the folder's own, where it was a link.
func own(t *testing.T, name string) []byte {
	b, err := os.ReadFile(name)
	must(t, err)
	must(t, os.Remove(name))
	must(t, os.WriteFile(name, b, 0o644))
	return b
}

// flipImage flips a byte in the middle of a partition.
func flipImage(partition string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		var d verify.Description
		readJSON(t, filepath.Join(dir, "image.json"), &d)
		raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "demo.qcow2")
		convert := func(args ...string) {
			if out, err := exec.Command("qemu-img", append([]string{"convert"}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v\n%s", err, out)
			}
		}
		convert("-O", "raw", image, raw)
		for _, p := range d.Partitions {
			if p.Name == partition {
				flip(t, raw, p.Start+p.Size/2)
			}
		}
		must(t, os.Remove(image))
		convert("-O", "qcow2", raw, image)
		must(t, os.Remove(raw))
	}
}

func editFile(name, old, now string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		name := filepath.Join(dir, name)
		b := own(t, name)
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("%s has no %s", name, old)
		}
		must(t, os.WriteFile(name, bytes.Replace(b, []byte(old), []byte(now), 1), 0o644))
	}
}

// flipPackage flips a byte of a package in a store that has links to the others.
func flipPackage(t *testing.T, dir string) {
	l := readLock(t, filepath.Join(dir, "caisson.lock"))
	from, err := filepath.EvalSymlinks(filepath.Join(dir, "store"))
	must(t, err)
	store := filepath.Join(dir, "store")
	must(t, os.Remove(store))
	if out, err := exec.Command("cp", "-as", from, store).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	in := l.Of("x86_64", lock.SetRoot)[0]
	h := in.SHA256.Hex()
	name := filepath.Join(store, "sha256", h[:2], h)
	own(t, name)
	flip(t, name, in.Size/2)
}

// otherKey puts another public key where the builder's was.
func otherKey(t *testing.T, dir string) {
	must(t, os.Remove(filepath.Join(dir, "cosign.pub")))
	must(t, os.Remove(filepath.Join(dir, "cosign.key")))
	c := exec.Command("cosign", "generate-key-pair")
	c.Dir = dir
	c.Env = append(os.Environ(), "HOME="+t.TempDir())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cosign: %v\n%s", err, out)
	}
}
