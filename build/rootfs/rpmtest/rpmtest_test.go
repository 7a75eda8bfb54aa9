package rpmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLikeRPM lets rpm read a package, and check its digests.
func TestLikeRPM(t *testing.T) {
	rpm, err := exec.LookPath("rpmkeys")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("rpmkeys is not installed")
	}
	entries := []Entry{{Name: "./a", Mode: unix.S_IFREG | 0o644, Data: "a"}, {Name: "./l", Mode: unix.S_IFLNK | 0o777, Data: "a"}}
	payload, err := Archive(entries...)
	if err != nil {
		t.Fatal(err)
	}
	p := Package{Name: "made", Files: Named(entries...), Payload: payload}
	for _, c := range []struct {
		name, digest string
		ok           bool
	}{{"right", "", true}, {"wrong", sum([]byte("other")), false}} {
		p.PayloadDigest = c.digest
		name := filepath.Join(t.TempDir(), c.name+".rpm")
		if err := os.WriteFile(name, p.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(rpm, "--checksig", "-v", name).CombinedOutput()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}
