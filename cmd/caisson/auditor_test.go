package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/verify"
)

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
