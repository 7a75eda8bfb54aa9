package sshsig

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// signedBy is a message that ssh-keygen has signed, for a namespace.
func signedBy(t testing.TB, typ, namespace string) (pub, message, signature []byte) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("ssh-keygen is not installed")
	}
	dir := t.TempDir()
	message = []byte("a message\n")
	if err := os.WriteFile(filepath.Join(dir, "m"), message, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-q", "-t", typ, "-N", "", "-f", "key"}, {"-q", "-Y", "sign", "-n", namespace, "-f", "key", "m"}} {
		cmd := exec.Command("ssh-keygen", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
		}
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return read("key.pub"), message, read("m.sig")
}

func TestCheck(t *testing.T) {
	for _, typ := range []string{"ed25519", "ecdsa", "rsa"} {
		pub, message, signature := signedBy(t, typ, "git")
		keys, err := ParseKeys(pub)
		if err != nil || !IsSignature(signature) {
			t.Fatal(err)
		}
		now := time.Unix(1700000000, 0)
		if k, err := keys.Check(message, signature, "git", now); err != nil || !strings.HasPrefix(k.Fingerprint(), "SHA256:") {
			t.Errorf("%s: %v", typ, err)
		}
		for what, f := range map[string]func() error{
			"another message":   func() error { _, err := keys.Check([]byte("b"), signature, "git", now); return err },
			"another namespace": func() error { _, err := keys.Check(message, signature, "file", now); return err },
			"no signature":      func() error { _, err := keys.Check(message, nil, "git", now); return err },
			"no keys":           func() error { _, err := Keys(nil).Check(message, signature, "git", now); return err },
		} {
			if f() == nil {
				t.Errorf("%s: %s was accepted", typ, what)
			}
		}
		for at := bytes.IndexByte(signature, '\n') + 1; at < len(signature)-40; at += 11 {
			bad := bytes.Clone(signature)
			if bad[at] != '\n' {
				bad[at] = 'A' + (bad[at]+1)%26
			}
			if _, err := keys.Check(message, bad, "git", now); err == nil && !bytes.Equal(bad, signature) {
				t.Errorf("%s: a change of byte %d was not seen", typ, at)
			}
		}
	}
}

func FuzzCheck(f *testing.F) {
	pub, message, signature := signedBy(f, "ed25519", "git")
	f.Add(pub, signature)
	f.Add([]byte("a@b,c namespaces=\"git\",valid-after=\"20200101Z\" "+string(pub)), signature)
	f.Fuzz(func(t *testing.T, k, s []byte) {
		keys, err := ParseKeys(k)
		if err != nil {
			return
		}
		for _, key := range keys {
			if !strings.HasPrefix(key.Fingerprint(), "SHA256:") {
				t.Error(key.Fingerprint())
			}
		}
		_, _ = keys.Check(message, s, "git", time.Unix(1700000000, 0))
	})
}
