package rpmsig

import (
	"bytes"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // what is signed with it is there
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
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

// gnupg is a home of gpg, with keys of the test's own.
type gnupg struct {
	t    *testing.T
	home string
	gpg  string
}

func newGnuPG(t *testing.T) *gnupg {
	t.Helper()
	tools(t, "gpg", "gpgconf", "rpmbuild", "rpmsign", "rpmkeys")
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "gpg") // the agent's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	g := &gnupg{t, home, gpg}
	t.Cleanup(func() {
		g.run("", "gpgconf", "--kill", "gpg-agent")
		os.RemoveAll(home)
	})
	return g
}

// run runs a command and returns what it prints.
func (g *gnupg) run(stdin, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "GNUPGHOME="+g.home, "HOME="+g.home, "LC_ALL=C")
	c.Stdin = strings.NewReader(stdin)
	var out, msg bytes.Buffer
	c.Stdout, c.Stderr = &out, &msg
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s%s", name, args, err, &out, &msg)
	}
	return out.String(), nil
}

// do has gpg do something at a time.
func (g *gnupg) do(at time.Time, stdin string, args ...string) string {
	g.t.Helper()
	out, err := g.run(stdin, g.gpg, append([]string{"--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", "", "--faked-system-time", fakedTime(at)}, args...)...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

func fakedTime(at time.Time) string { return at.UTC().Format("20060102T150405") + "!" }

// key makes a key that never expires, and returns its fingerprint.
func (g *gnupg) key(id, algo, usage string, at time.Time) string {
	g.t.Helper()
	g.do(at, "", "--quick-gen-key", id, algo, usage, "never")
	return g.fingerprints(id)[0]
}

// fingerprints are those of the key and of its subkeys.
func (g *gnupg) fingerprints(id string) []string {
	g.t.Helper()
	var all []string
	for line := range strings.Lines(g.do(when, "", "--with-colons", "--list-keys", id)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			all = append(all, f[9])
		}
	}
	return all
}

// ring is what the world knows of a key.
func (g *gnupg) ring(id string) (Keyring, string) {
	g.t.Helper()
	armored := g.do(when, "", "--export", "--armor", id)
	k, err := ReadKeys([]byte(armored))
	if err != nil {
		g.t.Fatal(err)
	}
	return k, armored
}

// build has rpmbuild make a package.
func (g *gnupg) build(name string) []byte {
	g.t.Helper()
	spec := filepath.Join(g.home, name+".spec")
	text := fmt.Sprintf("Name: %s\nEpoch: 7\nVersion: 1.2\nRelease: 3\nSummary: a test\nLicense: MIT\nBuildArch: noarch\n%%description\n%%install\n"+
		"mkdir -p %%{buildroot}/usr/share\nyes %s | head -c 100000 >%%{buildroot}/usr/share/%s\n%%files\n/usr/share/%s\n", name, name, name, name)
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.run("", "rpmbuild", "-bb", "--quiet", "--define", "_topdir "+g.home+"/rpmbuild", spec); err != nil {
		g.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(g.home, "rpmbuild/RPMS/noarch", name+"-1.2-3.noarch.rpm"))
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

// sign has rpmsign sign a package at a time.
func (g *gnupg) sign(rpm []byte, key string, at time.Time, args ...string) []byte {
	g.t.Helper()
	file := filepath.Join(g.home, "signed.rpm")
	if err := os.WriteFile(file, rpm, 0o644); err != nil {
		g.t.Fatal(err)
	}
	args = append(args, "--define", "_gpg_name "+key, "--define", "__gpg "+g.gpg,
		"--define", "_gpg_sign_cmd_extra_args --batch --pinentry-mode loopback --faked-system-time "+fakedTime(at), "--resign", file)
	if _, err := g.run("", "rpmsign", args...); err != nil {
		g.t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

// rpmkeys is what rpm says of a package, given a key.
func (g *gnupg) rpmkeys(armored string, rpm []byte) error {
	g.t.Helper()
	dir, err := os.MkdirTemp(g.home, "db")
	if err != nil {
		g.t.Fatal(err)
	}
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "rpm")
	for name, b := range map[string][]byte{key: []byte(armored), file: rpm} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	if _, err := g.run("", "rpmkeys", "--dbpath", dir, "--import", key); err != nil {
		return err
	}
	_, err = g.run("", "rpmkeys", "--dbpath", dir, "--define", "_pkgverify_level all", "-K", file)
	return err
}

// verdict is what gpg says of the signature over the header: the first word of
// its status that is one.
func (g *gnupg) verdict(p *Package) string {
	g.t.Helper()
	blob, err := p.sig.bin(sigRSAHeader)
	if err == nil && blob == nil {
		blob, err = p.sig.bin(sigDSAHeader)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	header := make([]byte, p.main.end-p.main.start)
	if _, err := p.r.ReadAt(header, p.main.start); err != nil {
		g.t.Fatal(err)
	}
	sig, data := filepath.Join(g.home, "sig"), filepath.Join(g.home, "data")
	os.WriteFile(sig, blob, 0o644)
	os.WriteFile(data, header, 0o644)
	out, _ := g.run("", g.gpg, "--batch", "--status-fd", "1", "--verify", sig, data)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], "SIG") && f[1] != "NEWSIG" && f[1] != "VALIDSIG" {
			return f[1]
		}
	}
	return ""
}

func openBytes(t testing.TB, b []byte) *Package {
	t.Helper()
	p, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// signings are the ways to sign a package: what is done to a new key before
// and after it signs, and what comes of it.
var signings = []struct {
	name  string
	algo  string
	make  func(g *gnupg, id string) (signer string) // nil: the key itself signs
	at    time.Duration                             // after the key was made
	args  []string                                  // rpmsign's
	after func(g *gnupg, id string)
	gpg   string // what gpg says of it today
	err   string // what we say; empty for nothing
	is    string // the algorithm
}{
	{name: "RSA", algo: "rsa2048", gpg: "GOODSIG", is: "RSA/SHA512"},
	{name: "RSA, header and payload", algo: "rsa2048", args: []string{"--rpmv3"}, gpg: "GOODSIG", is: "RSA/SHA512"},
	{name: "RSA, SHA-256", algo: "rsa2048", args: []string{"--define", "_gpg_digest_algo sha256"}, gpg: "GOODSIG", is: "RSA/SHA256"},
	{name: "RSA, SHA-1", algo: "rsa2048", args: []string{"--define", "_gpg_digest_algo sha1"}, err: "RSA/SHA-1, which proves nothing"},
	{name: "RSA, too short", algo: "rsa1024", gpg: "GOODSIG", err: "the key has 1024 bits, want at least 2048"},
	{name: "DSA", algo: "dsa2048", gpg: "GOODSIG", is: "DSA/SHA256"},
	{name: "DSA, header and payload", algo: "dsa2048", args: []string{"--rpmv3"}, gpg: "GOODSIG", is: "DSA/SHA256"},
	{name: "EdDSA", algo: "ed25519", gpg: "GOODSIG", is: "EdDSA/SHA256"},
	{name: "EdDSA, header and payload", algo: "ed25519", args: []string{"--rpmv3"}, gpg: "GOODSIG", is: "EdDSA/SHA256"},
	{name: "a subkey", algo: "rsa2048", make: subkey("ed25519"), gpg: "GOODSIG", is: "EdDSA/SHA256"},
	{name: "expired since", algo: "ed25519", at: year / 2, after: expire(year, false), gpg: "EXPKEYSIG", is: "EdDSA/SHA256"},
	{name: "expired before", algo: "ed25519", at: 2 * year, after: expire(year, false), gpg: "EXPKEYSIG", err: "after the key expired"},
	{name: "a subkey, expired since", algo: "ed25519", make: subkey("ed25519"), at: year / 2, after: expire(year, true), gpg: "EXPKEYSIG", is: "EdDSA/SHA256"},
	{name: "a subkey, expired before", algo: "ed25519", make: subkey("ed25519"), at: 2 * year, after: expire(year, true), gpg: "EXPKEYSIG", err: "after the key expired"},
	{name: "a subkey of a key that expired before", algo: "ed25519", make: subkey("ed25519"), at: 2 * year, after: expire(year, false), gpg: "EXPKEYSIG", err: "after the key expired"},
	{name: "revoked since", algo: "ed25519", after: func(g *gnupg, id string) { g.revoke(id, "", 0) }, gpg: "REVKEYSIG", err: "the key is revoked"},
	{name: "compromised since", algo: "ed25519", after: func(g *gnupg, id string) { g.revoke(id, "", 1) }, gpg: "REVKEYSIG", err: "the key is revoked"},
	{name: "superseded since", algo: "ed25519", after: func(g *gnupg, id string) { g.revoke(id, "", 2) }, gpg: "REVKEYSIG", is: "EdDSA/SHA256"},
	{name: "superseded before", algo: "ed25519", at: 2 * year, after: func(g *gnupg, id string) { g.revoke(id, "", 2) }, gpg: "REVKEYSIG", err: "superseded"},
	{name: "a subkey, revoked since", algo: "ed25519", make: subkey("ed25519"), after: func(g *gnupg, id string) { g.revoke(id, "key 1\n", 0) }, gpg: "REVKEYSIG", err: "the subkey is revoked"},
	{name: "a subkey of a key that was revoked", algo: "ed25519", make: subkey("ed25519"), after: func(g *gnupg, id string) { g.revoke(id, "", 0) }, gpg: "REVKEYSIG", err: "the key is revoked"},
	{name: "expiry put off", algo: "ed25519", at: 2 * year, after: func(g *gnupg, id string) {
		expire(year, false)(g, id)
		g.do(when.Add(year/2), "", "--quick-set-expire", g.fingerprints(id)[0], "never")
	}, gpg: "GOODSIG", is: "EdDSA/SHA256"},
}

const year = 365 * 24 * time.Hour

// subkey makes a subkey that signs.
func subkey(algo string) func(g *gnupg, id string) string {
	return func(g *gnupg, id string) string {
		g.do(when, "", "--quick-add-key", g.fingerprints(id)[0], algo, "sign", "never")
		return g.fingerprints(id)[1] + "!"
	}
}

// expire has the key, or its subkey, expire so long after it was made.
func expire(life time.Duration, sub bool) func(g *gnupg, id string) {
	return func(g *gnupg, id string) {
		fpr := g.fingerprints(id)
		args := []string{"--quick-set-expire", fpr[0], "seconds=" + fmt.Sprint(int64(life/time.Second))}
		if sub {
			args = append(args, fpr[1])
		}
		g.do(when.Add(time.Minute), "", args...)
	}
}

// revoke revokes a key, or the one of its subkeys that is chosen, for one of gpg's
// reasons.
func (g *gnupg) revoke(id, choose string, reason int) {
	g.do(when.Add(year), fmt.Sprintf("%srevkey\ny\n%d\n\ny\nsave\n", choose, reason), "--command-fd", "0", "--edit-key", id)
}

// rpmsign signs by each kind of key, gpg says that the key is what it is said
// to be, and rpmkeys accepts all that we accept, and nothing that was changed.
func TestAgainstRPM(t *testing.T) {
	g := newGnuPG(t)
	rpm := g.build("hello")
	_, stranger := g.ring(g.key("stranger@example.org", "ed25519", "sign", when))
	for n, c := range signings {
		t.Run(c.name, func(t *testing.T) {
			g.t = t
			id := fmt.Sprintf("key-%d@example.org", n)
			usage := "sign"
			if c.make != nil {
				usage = "cert"
			}
			signer := g.key(id, c.algo, usage, when)
			if c.make != nil {
				signer = c.make(g, id)
			}
			b := g.sign(rpm, signer, when.Add(c.at+time.Hour), c.args...)
			if c.after != nil {
				c.after(g, id)
			}
			k, armored := g.ring(id)
			if got := g.verdict(openBytes(t, b)); got != c.gpg && c.gpg != "" {
				t.Errorf("gpg says %s, want %s", got, c.gpg)
			}
			s, err := check(k, b)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %+v, %v, want %s", s, err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			fpr := strings.TrimSuffix(signer, "!")
			if s.KeyFingerprint != g.fingerprints(id)[0] || s.KeyID != fpr[24:] || s.UserID != id || s.Algo != c.is || !s.Time.Equal(when.Add(c.at+time.Hour)) {
				t.Errorf("got %+v", s)
			}
			if err := g.rpmkeys(armored, b); err != nil {
				t.Errorf("we accept what rpm does not: %v", err)
			}
			g.changed(k, armored, b)
			if other, err := ReadKeys([]byte(stranger)); err != nil {
				t.Error(err)
			} else if _, err := check(other, b); err == nil || !strings.Contains(err.Error(), "which is not trusted") {
				t.Errorf("by another key: got %v", err)
			}
		})
	}
}

// changed has a package that is good changed: neither we nor rpm accept it.
func (g *gnupg) changed(k Keyring, armored string, b []byte) {
	g.t.Helper()
	p := openBytes(g.t, b)
	for what, at := range map[string]int64{
		"the header": p.main.end - 10, "the payload": p.main.end + 50, "the last byte": int64(len(b)) - 1, "the digest of the header": p.sig.entries[sigSHA256].offset,
	} {
		c := bytes.Clone(b)
		c[at] ^= 1
		if s, err := check(k, c); err == nil {
			g.t.Errorf("%s changed: we say %+v", what, s)
		}
		if err := g.rpmkeys(armored, c); err == nil {
			g.t.Errorf("%s changed: rpm accepts it", what)
		}
	}
}

// What rpm before 4.14 wrote: signatures of version 3, over header and
// payload, here by DSA.
func TestVersion3DSA(t *testing.T) {
	g := newGnuPG(t)
	id := g.key("dsa@example.org", "dsa2048", "sign", when)
	k, _ := g.ring(id)
	secret, err := openpgp.ReadArmoredKeyRing(strings.NewReader(g.do(when, "", "--export-secret-keys", "--armor", id)))
	if err != nil {
		t.Fatal(err)
	}
	rpm := g.build("hello")
	p := openBytes(t, rpm)
	header, all := rpm[p.main.start:p.main.end], rpm[p.main.start:]
	key := secret[0].PrivateKey
	for _, h := range []struct {
		id   byte
		hash crypto.Hash
	}{{8, crypto.SHA256}, {10, crypto.SHA512}} {
		v3 := func(data []byte) []byte { return signV3DSA(t, key, h.id, h.hash, when, data) }
		sig := makeHeader(bin(sigDSAHeader, v3(header)), bin(sigGPG, v3(all)))
		b := makeRPM(sig, header, rpm[p.main.end:])
		s, err := check(k, b)
		if err != nil || s.KeyFingerprint != id || !strings.HasPrefix(s.Algo, "DSA/SHA") {
			t.Errorf("%s: got %+v, %v", h.hash, s, err)
		}
		for _, at := range []int64{p.main.start + 20, p.main.end + 50} { // the signature header has another length now
			c := bytes.Clone(b)
			c[int64(len(b))-int64(len(rpm))+at] ^= 1
			if s, err := check(k, c); err == nil {
				t.Errorf("%s: byte %d changed: got %+v", h.hash, at, s)
			}
		}
		short := makeRPM(makeHeader(bin(sigDSAHeader, v3(header)[:60])), header, rpm[p.main.end:])
		if s, err := check(k, short); err == nil {
			t.Errorf("cut: got %+v", s)
		}
	}
}

// signV3DSA makes a version 3 signature packet.
func signV3DSA(t testing.TB, key *packet.PrivateKey, id byte, h crypto.Hash, at time.Time, data []byte) []byte {
	t.Helper()
	priv := key.PrivateKey.(*dsa.PrivateKey)
	body, digest := v3Body(key, id, h, at, data)
	r, s, err := dsa.Sign(rand.Reader, priv, digest[:priv.Q.BitLen()/8])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*big.Int{r, s} {
		body = append(binary.BigEndian.AppendUint16(body, uint16(n.BitLen())), n.Bytes()...)
	}
	return v3Packet(body)
}
