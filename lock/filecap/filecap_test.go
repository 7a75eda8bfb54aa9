package filecap

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestParse has values that setcap of libcap 2.66 wrote.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"cap_net_raw=ep":               "0100000200200000000000000000000000000000",
		"= cap_net_raw+ep":             "0100000200200000000000000000000000000000",
		"cap_net_admin,cap_net_raw=ep": "0100000200300000000000000000000000000000",
		"CAP_SETUID=p":                 "0000000280000000000000000000000000000000",
		"cap_checkpoint_restore=ep":    "0100000200000000000000000001000000000000",
		"cap_chown=ip cap_chown-p":     "0000000200000000010000000000000000000000",
		"cap_sys_admin,cap_bpf=eip":    "0100000200002000000020008000000080000000",
		"all=p":                        "00000002ffffffff00000000ff01000000000000",
		"=":                            "0000000200000000000000000000000000000000",
	} {
		got, err := Parse(text)
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%q: got %x, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"cap_net_raw", "cap_nothing=ep", "cap_net_raw=x", "=ep cap_", ",=p"} {
		if b, err := Parse(text); err == nil {
			t.Errorf("%q: got %x, want an error", text, b)
		}
	}
}

// TestParseLikeSetcap lets setcap set what Parse parses.
func TestParseLikeSetcap(t *testing.T) {
	setcap, err := exec.LookPath("setcap")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if os.Getuid() != 0 {
		t.Skip("only root sets capabilities")
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"cap_net_raw=ep", "= cap_net_raw+ep", "cap_net_admin,cap_net_raw+eip", "cap_setuid=p", "cap_chown=ip cap_chown-p", "cap_sys_admin,cap_bpf=eip", "cap_setuid=ep cap_setgid+ep", "cap_fowner=p cap_fowner+e",
	} {
		if out, err := exec.Command(setcap, text, name).CombinedOutput(); err != nil {
			t.Logf("%q: %v: %s", text, err, out)
			continue
		}
		want := make([]byte, 64)
		n, err := unix.Getxattr(name, Xattr, want)
		if err != nil {
			t.Skipf("reading the attribute: %v", err)
		}
		if got, err := Parse(text); err != nil || string(got) != string(want[:n]) {
			t.Errorf("%q: got %x, %v, setcap wrote %x", text, got, err, want[:n])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"cap_net_raw=ep", "= cap_net_raw+ep", "all=p", "=", "a+-=", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := Parse(s); err == nil && len(b) != 20 {
			t.Errorf("%q: %d bytes", s, len(b))
		}
	})
}
