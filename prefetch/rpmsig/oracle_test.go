package rpmsig

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tools skips the test where a tool is absent, and fails it in CI.
func tools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// rpmsign signs, rpmkeys judges, and we agree with it: on what it signed with
// each kind of key, and on every such file with a byte changed.
func TestAgainstRPM(t *testing.T) {
	tools(t, "gpg", "gpgconf", "rpmsign", "rpmkeys")
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "gpg") // the agent's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) ([]byte, error) {
		c := exec.Command(name, args...)
		c.Env = append(os.Environ(), "GNUPGHOME="+home, "HOME="+home, "LC_ALL=C")
		var out, msg bytes.Buffer
		c.Stdout, c.Stderr = &out, &msg
		err := c.Run()
		if err != nil {
			t.Logf("%s: %v: %s", name, err, msg.Bytes())
		}
		return out.Bytes(), err
	}
	t.Cleanup(func() {
		run("gpgconf", "--kill", "gpg-agent")
		os.RemoveAll(home)
	})
	for _, algo := range []string{"rsa3072", "ed25519"} {
		id := algo + "@example.org"
		if _, err := run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", id, algo, "sign", "never"); err != nil {
			t.Fatal(err)
		}
		key, err := run("gpg", "--export", "--armor", id)
		if err != nil {
			t.Fatal(err)
		}
		k, err := ReadKeys(key)
		if err != nil {
			t.Fatal(err)
		}
		keyFile, db := filepath.Join(home, algo+".asc"), filepath.Join(home, algo+".db")
		if err := os.WriteFile(keyFile, key, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := run("rpmkeys", "--dbpath", db, "--import", keyFile); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"brightnessctl-0.5.1-1.azl3.x86_64.rpm", "fping-3.10-1.el7.x86_64.rpm"} {
			file := filepath.Join(home, name)
			if err := os.WriteFile(file, data(t, name), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := run("rpmsign", "--define", "_gpg_name "+id, "--define", "__gpg "+gpg, "--resign", file); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			agree := func(what string, b []byte, good bool) {
				t.Helper()
				if err := os.WriteFile(file, b, 0o644); err != nil {
					t.Fatal(err)
				}
				_, theirs := run("rpmkeys", "--dbpath", db, "--define", "_pkgverify_level all", "-K", file)
				s, ours := check(k, b)
				if (theirs == nil) != good || (ours == nil) != good {
					t.Errorf("%s, %s, %s: rpm says %v, we say %+v, %v", algo, name, what, theirs, s, ours)
				}
			}
			agree("as signed", b, true)
			p, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			for what, at := range map[string]int64{"header": p.main.end - 10, "payload": p.main.end + 50, "last byte": int64(len(b)) - 1} {
				c := bytes.Clone(b)
				c[at] ^= 1
				agree(what+" changed", c, false)
			}
			if s, err := check(k, b); err == nil && !strings.EqualFold(s.KeyFingerprint, k.Fingerprints()[0]) {
				t.Errorf("signed by %s, want %s", s.KeyFingerprint, k.Fingerprints()[0])
			}
		}
	}
}
