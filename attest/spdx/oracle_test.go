package spdx_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// oracle runs a Python program of .ci/setup on a document.
func oracle(t *testing.T, document []byte, name string, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("%s is not installed: .ci/setup test", name)
		}
		t.Skipf("%s is not installed (.ci/setup test): its verdict was not asked for", name)
	}
	file := filepath.Join(t.TempDir(), "sbom.spdx.json")
	if err := os.WriteFile(file, document, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, append(args, file)...).CombinedOutput()
	return string(out), err
}

// TestSPDXTools has the Python implementation of SPDX 2.3 validate it.
func TestSPDXTools(t *testing.T) {
	t.Parallel()
	if out, err := oracle(t, write(t, subject(t)), "pyspdxtools", "-i"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNTIA asks for the minimum elements of an SBOM (NTIA, 2021). Without a
// supplier in the manifest one of them is missing, which the checker has to see.
func TestNTIA(t *testing.T) {
	t.Parallel()
	out, err := oracle(t, write(t, subject(t)), "ntia-checker")
	if err != nil || !strings.Contains(out, "Conformant: True") {
		t.Errorf("%v\n%s", err, out)
	}
	s := subject(t)
	s.Lock.Supplier = ""
	out, _ = oracle(t, write(t, s), "ntia-checker")
	if !strings.Contains(out, "Conformant: False") {
		t.Errorf("without a supplier:\n%s", out)
	}
}
