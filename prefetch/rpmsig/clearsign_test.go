package rpmsig

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestClearSigned has gpg sign a file of checksums in clear.
func TestClearSigned(t *testing.T) {
	tools(t, "gpg")
	home := t.TempDir()
	gpg := func(stdin string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--passphrase", ""}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %v: %v\n%s", args, err, &errs)
		}
		return out
	}
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	gpg("", "--quick-gen-key", "Test <test@example.org>", "rsa2048")
	ring, err := ReadKeys(gpg("", "--armor", "--export"))
	if err != nil {
		t.Fatal(err)
	}
	const text = "# a comment\n- dashed\nSHA256 (a.iso) = 00  \n\n-----BEGIN PGP SIGNED MESSAGE-----\nlast line"
	for _, ending := range []string{"", "\n"} {
		message := gpg(text+ending, "--clear-sign")
		got, sig, err := SplitClearSigned(message)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(strings.ReplaceAll(text, "00  ", "00"), "\n", "\r\n")
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if s, err := ring.CheckDetached(bytes.NewReader(got), bytes.NewReader(sig)); err != nil || s.KeyFingerprint == "" {
			t.Errorf("%+v, %v", s, err)
		}
		altered, sig, err := SplitClearSigned(bytes.Replace(message, []byte("= 00"), []byte("= 01"), 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ring.CheckDetached(bytes.NewReader(altered), bytes.NewReader(sig)); err == nil {
			t.Error("an altered text was taken")
		}
		for name, bad := range map[string][]byte{
			"text before": append([]byte("SHA256 (a.iso) = 02\n"), message...),
			"text after":  append(bytes.Clone(message), "SHA256 (a.iso) = 02\n"...),
			"cut":         message[:len(message)-20],
			"twice":       append(bytes.Clone(message), message...),
		} {
			if got, _, err := SplitClearSigned(bad); !errors.Is(err, ErrBad) {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		}
	}
	if _, _, err := SplitClearSigned([]byte(text[:20])); !errors.Is(err, ErrUnsigned) {
		t.Errorf("plain text: %v", err)
	}
	if err := os.WriteFile(filepath.Join(home, "sums"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sig := gpg("", "--armor", "--detach-sign", "--output", "-", filepath.Join(home, "sums"))
	if _, err := ring.CheckDetached(strings.NewReader(text), bytes.NewReader(sig)); err != nil {
		t.Errorf("a signature beside it: %v", err)
	}
}

func FuzzClearSigned(f *testing.F) {
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n- -a\nb\n-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, sig, err := SplitClearSigned(b)
		if err == nil && (!bytes.HasPrefix(sig, []byte("-----BEGIN PGP SIGNATURE-----")) || len(text) > 2*len(b)) {
			t.Errorf("%q gives %q and %q", b, text, sig)
		}
	})
}
