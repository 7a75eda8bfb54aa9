//go:build pkcs11key

package sign

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestToken signs by a key of a token that SoftHSM keeps.
func TestToken(t *testing.T) {
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	for _, name := range []string{"softhsm2-util", "pkcs11-tool"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, args := range [][]string{
		{"softhsm2-util", "--init-token", "--free", "--label", "caisson", "--pin", "1234", "--so-pin", "5678"},
		{"pkcs11-tool", "--module", module, "--login", "--pin", "1234", "--token-label", "caisson", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "podvm", "--id", "01", "--usage-sign"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Setenv("COSIGN_PKCS11_PIN", "1234")
	t.Setenv("COSIGN_PKCS11_IGNORE_CERTIFICATE", "1")
	s, err := Open(t.Context(), "pkcs11:token=caisson;object=podvm?module-path="+module, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	signs(t, s)
	if _, err := Open(t.Context(), "pkcs11:token=caisson;object=other?module-path="+module, os.Getenv); err == nil {
		t.Error("a key that is not there")
	}
}
