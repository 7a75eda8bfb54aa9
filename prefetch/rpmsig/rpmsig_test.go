package rpmsig

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const centosKey = "6341AB2753D78A78A7C27BB124C6A8A7F4A80EB5"

// data is a file of the shared test data; the test is skipped where it is absent.
func data(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../../shared/data/rpms", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no shared data: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func centos(t testing.TB) Keyring {
	t.Helper()
	k, err := ReadKeys(data(t, "RPM-GPG-KEY-CentOS-7"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestReadKeys(t *testing.T) {
	k := centos(t)
	if got := k.Fingerprints(); len(got) != 1 || got[0] != centosKey {
		t.Errorf("got %v, want %s", got, centosKey)
	}
	if got := k.Only("00").Fingerprints(); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	armored := data(t, "RPM-GPG-KEY-CentOS-7")
	two, err := ReadKeys(append(append([]byte("some text\n"), armored...), armored...))
	if err != nil {
		t.Fatal(err)
	}
	if len(two.keys) != 2 || len(two.Fingerprints()) != 1 {
		t.Errorf("got %d keys, %d fingerprints, want 2 and 1", len(two.keys), len(two.Fingerprints()))
	}
	for _, bad := range []string{"", "hello", armorBegin + "\n\nAAAA\n"} {
		if _, err := ReadKeys([]byte(bad)); err == nil {
			t.Errorf("ReadKeys(%q) is no error", bad)
		}
	}
}

func TestRealPackages(t *testing.T) {
	k := centos(t)
	for _, c := range []struct {
		file, nevra, arch string
		err               string // empty: signed by the CentOS 7 key
	}{
		{"basesystem-10.0-7.el7.centos.noarch.rpm", "basesystem-10.0-7.el7.centos.noarch", "noarch", ""},
		{"bash-4.2.46-31.el7.x86_64.rpm", "bash-4.2.46-31.el7.x86_64", "x86_64", ""},
		{"centos-release-7-6.1810.2.el7.centos.x86_64.rpm", "centos-release-7-6.1810.2.el7.centos.x86_64", "x86_64", ""},
		{"filesystem-3.2-25.el7.x86_64.rpm", "filesystem-3.2-25.el7.x86_64", "x86_64", ""},
		{"libattr-2.4.46-13.el7.i686.rpm", "libattr-2.4.46-13.el7.i686", "i686", ""},
		{"libcap-ng-0.7.5-4.el7.x86_64.rpm", "libcap-ng-0.7.5-4.el7.x86_64", "x86_64", ""},
		{"setup-2.8.71-10.el7.noarch.rpm", "setup-2.8.71-10.el7.noarch", "noarch", ""},
		{"tzdata-2019b-1.el7.noarch.rpm", "tzdata-2019b-1.el7.noarch", "noarch", ""},
		{"fping-3.10-1.el7.x86_64.rpm", "fping-3.10-1.el7.x86_64", "x86_64", "signed by the key D13D58E479EA5ED4 (DSA/SHA-1), which is not trusted"},
		{"zabbix-get-4.2.5-1.el7.x86_64.rpm", "zabbix-get-4.2.5-1.el7.x86_64", "x86_64", "signed by the key 082AB56BA14FE591 (RSA/SHA512), which is not trusted"},
		{"brightnessctl-0.5.1-1.azl3.x86_64.rpm", "brightnessctl-0.5.1-1.azl3.x86_64", "x86_64", "not signed"},
		{"which-0.1.rpm", "", "", "not signed"},
	} {
		t.Run(c.file, func(t *testing.T) {
			b := data(t, c.file)
			p, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if c.nevra != "" && p.NEVRA() != c.nevra {
				t.Errorf("got %s, want %s", p.NEVRA(), c.nevra)
			}
			if err := p.CheckDigests(); err != nil {
				t.Error(err)
			}
			s, err := k.Check(p)
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Fatalf("got %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.KeyFingerprint != centosKey || s.KeyID != centosKey[24:] || s.Algo != "RSA/SHA256" ||
				!strings.HasPrefix(s.Covers, "header and payload") {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// Whatever byte of a signed package is changed after its signature header,
// the package is refused.
func TestFlippedBytes(t *testing.T) {
	k := centos(t)
	orig := data(t, "basesystem-10.0-7.el7.centos.noarch.rpm")
	p, err := Open(bytes.NewReader(orig), int64(len(orig)))
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(orig)
	for i := p.main.start; i < int64(len(b)); i += 3 {
		b[i] ^= 1 << (i % 8)
		if _, err := k.CheckRPM(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Fatalf("byte %d changed: no error", i)
		}
		b[i] = orig[i]
	}
	for n := 0; n < len(orig); n += 7 {
		if _, err := k.CheckRPM(bytes.NewReader(orig[:n]), int64(n)); err == nil {
			t.Fatalf("cut to %d bytes: no error", n)
		}
	}
	longer := append(bytes.Clone(orig), 0)
	if _, err := k.CheckRPM(bytes.NewReader(longer), int64(len(longer))); !errors.Is(err, ErrBad) {
		t.Errorf("a byte appended: got %v, want a bad signature", err)
	}
}
