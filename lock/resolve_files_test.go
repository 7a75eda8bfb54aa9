package lock

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock/digest"
	"caisson/lock/tooltest"
)

const isoAt = "https://host.example/9/"

// serve puts files at addresses below isoAt.
func (w *world) serveFiles(files map[string]string) {
	w.t.Helper()
	dir := writeFiles(w.t, w.t.TempDir(), files)
	for name := range files {
		w.files[isoAt+name] = filepath.Join(dir, name)
	}
}

// newSums is a world whose OpenPGP is "SIGNED key…", a line and a text.
func newSums(t *testing.T) *world {
	w := newWorld(t)
	w.repo("base", "")
	w.opts.SplitClearSigned = func(message []byte) (text, signature []byte, err error) {
		line, text, ok := bytes.Cut(message, []byte("\n"))
		key, signed := bytes.CutPrefix(line, []byte("SIGNED "))
		if !ok || !signed {
			return nil, nil, errors.New("not clear-signed")
		}
		return text, slices.Concat(key, []byte("\n"), text), nil
	}
	return w
}

func fileManifest(more string) string {
	return ociHead + "inputs: {files: [{name: rhel, url: '" + isoAt + "a.iso', " + more + "}]}\n"
}

func TestResolveSums(t *testing.T) {
	w := newSums(t)
	sum := digest.Of([]byte("iso"))
	w.serveFiles(map[string]string{"SUMS": "SIGNED key AA11\n# comment\nSHA256 (a.iso) = " + sum.Hex() + "\n"})
	manifest := fileManifest("mirrors: ['https://mirror.example/a.iso'], auth: {bearer: {token: $TOKEN}}, sums: {url: '" + isoAt + "SUMS', key: KEY}")
	l := w.lock(manifest)
	in := l.Find(KindFile, "rhel")
	if in.SHA256 != sum || *in.Verified != (Verified{Key: "AA11", What: "checksums", From: isoAt + "SUMS"}) || in.Auth.Bearer.Token != "$TOKEN" || len(in.Mirrors) != 1 {
		t.Errorf("%+v %+v", in, in.Verified)
	}
	if len(l.Sources) != 1 || l.Sources[0] != (Source{Name: "KEY", SHA256: digest.Of([]byte("key AA11\n"))}) {
		t.Errorf("%+v", l.Sources)
	}

	// What was locked stays, and nothing is asked for, until it is to be updated.
	newer := digest.Of([]byte("newer"))
	w.serveFiles(map[string]string{"SUMS": "SIGNED key AA11\nSHA256 (a.iso) = " + newer.Hex() + "\n"})
	w.opts.Old, w.asked = l, nil
	if got := w.lock(manifest).Find(KindFile, "rhel").SHA256; got != sum || slices.ContainsFunc(w.asked, func(s string) bool { return strings.HasPrefix(s, isoAt) }) {
		t.Errorf("got %s, asked %q", got, w.asked)
	}
	w.opts.Update = []string{"rhel"}
	if got := w.lock(manifest).Find(KindFile, "rhel").SHA256; got != newer {
		t.Errorf("updated: got %s, want %s", got, newer)
	}
	w.opts.Update = nil
	w.serveFiles(map[string]string{"SUMS": "SIGNED key CC33 BB22\nSHA256 (a.iso) = " + newer.Hex() + "\n"})
	if in := w.lock(strings.Replace(manifest, "key: KEY", "key: KEY2", 1)).Find(KindFile, "rhel"); in.SHA256 != newer || in.Verified.Key != "CC33,BB22" {
		t.Errorf("another key: %+v", in)
	}
}

// A SHA-512 alone: the file is fetched and compared.
func TestResolveSHA512(t *testing.T) {
	w := newSums(t)
	long := sha512.Sum512([]byte("iso"))
	text := hex.EncodeToString(long[:]) + " *a.iso\n"
	w.serveFiles(map[string]string{"a.iso": "iso", "SUMS": text, "SUMS.asc": "key AA11\n" + text})
	manifest := fileManifest("sums: {url: '" + isoAt + "SUMS', signature: '" + isoAt + "SUMS.asc', key: KEY}")
	in := w.lock(manifest).Find(KindFile, "rhel")
	if in.SHA256 != digest.Of([]byte("iso")) || in.Size != 3 {
		t.Errorf("%+v", in)
	}
	w.serveFiles(map[string]string{"a.iso": "another"})
	if _, err := w.resolve(manifest); err == nil || !strings.Contains(err.Error(), "inputs.files: rhel: "+isoAt+"a.iso: got sha512:") {
		t.Errorf("got %v", err)
	}
}

func TestResolveSumsErrors(t *testing.T) {
	const clear = "sums: {url: '" + isoAt + "SUMS', key: KEY}"
	sum := digest.Of([]byte("iso")).Hex()
	for name, tt := range map[string]struct {
		sums, manifest, want string
	}{
		"not signed":       {"SHA256 (a.iso) = " + sum, clear, "inputs.files: rhel: the signature of " + isoAt + "SUMS: not clear-signed"},
		"another key":      {"SIGNED key CC33 BB22\n" + sum + "  a.iso\n", clear, "inputs.files: rhel: the signature of " + isoAt + "SUMS: not signed by a trusted key"},
		"not listed":       {"SIGNED key AA11\n" + sum + "  b.iso\n", clear, `inputs.files: rhel: ` + isoAt + `SUMS: it has no checksum of "a.iso"`},
		"none":             {"", strings.Replace(clear, "SUMS", "NONE", 1), "inputs.files: rhel: " + isoAt + "NONE: file does not exist"},
		"no signature":     {"", strings.Replace(clear, "key:", "signature: '"+isoAt+"NONE', key:", 1), "inputs.files: rhel: " + isoAt + "NONE: file does not exist"},
		"no key":           {"", strings.Replace(clear, "KEY", "none", 1), "inputs.files: rhel: reading the key none: open DIR/none: no such file or directory"},
		"no key in file":   {"", strings.Replace(clear, "KEY", "SUMS", 1), "inputs.files: rhel: SUMS: no OpenPGP key"},
		"key of cosign's":  {"", strings.Replace(clear, "KEY", "a.pub", 1), "inputs.files: rhel: the signature of " + isoAt + "SUMS: a public key of cosign's needs a signature beside the checksums"},
		"too large":        {strings.Repeat("x", maxSums+1), clear, "inputs.files: rhel: " + isoAt + "SUMS: more than the 16777216 bytes that it may have"},
		"other local file": {"SIGNED key AA11\n" + sum + "  KEY\n", "XX", "inputs.files: rhel: KEY has " + digest.Of([]byte("key AA11\n")).String() + ", want sha256:" + sum},
	} {
		t.Run(name, func(t *testing.T) {
			w := newSums(t)
			_, public := publicKey(t)
			writeFiles(t, w.dir, map[string]string{"a.pub": public, "SUMS": "x"})
			w.serveFiles(map[string]string{"SUMS": tt.sums})
			m := fileManifest(tt.manifest)
			if tt.manifest == "XX" {
				m = strings.Replace(fileManifest(clear), isoAt+"a.iso", "KEY", 1)
			}
			w.fails(m, tt.want)
		})
	}
}

// The keys that cosign has, with signatures as `cosign sign-blob` makes them.
func TestSumsKeys(t *testing.T) {
	text := []byte("checksums")
	sum, long := sha256.Sum256(text), sha512.Sum512(text)
	ec, _ := publicKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	must := func(b []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b) + "\n"
	}
	for _, tt := range []struct {
		name string
		key  *sumsKey
		sig  string
	}{
		{"ECDSA", &sumsKey{public: ec.Public()}, must(ecdsa.SignASN1(rand.Reader, ec, sum[:]))},
		{"RSA", &sumsKey{public: rsaKey.Public()}, must(rsaKey.Sign(rand.Reader, sum[:], crypto.SHA256))},
		{"Ed25519", &sumsKey{public: edPublic}, must(ed25519.Sign(ed, text), nil)},
		{"Ed25519ph", &sumsKey{public: edPublic}, must(ed.Sign(nil, long[:], &ed25519.Options{Hash: crypto.SHA512}))},
	} {
		if err := tt.key.check(text, []byte(tt.sig)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err := tt.key.check([]byte("other"), []byte(tt.sig)); !errors.Is(err, ErrSignature) {
			t.Errorf("%s over another text: %v", tt.name, err)
		}
		if err := tt.key.check(text, []byte("?")); err == nil {
			t.Errorf("%s: no base64", tt.name)
		}
	}
	curve, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"", "x", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: curve})), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: curve[1:]}))} {
		if _, err := publicKeyFingerprint([]byte(b)); err == nil {
			t.Errorf("%q is a public key", b)
		}
	}
}

// cosignTool finds cosign, which need not be in the PATH.
func cosignTool(t *testing.T) string {
	t.Helper()
	at := filepath.Join(build.Default.GOPATH, "bin", "cosign")
	if _, err := os.Stat(at); err == nil {
		return at
	}
	return tooltest.Find(t, "cosign")
}

// TestCosignBlob checks what cosign itself signs.
func TestCosignBlob(t *testing.T) {
	cosign := cosignTool(t)
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(cosign, args...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "COSIGN_PASSWORD="}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cosign %v: %v\n%s", args, err, out)
		}
	}
	sums := digest.Of([]byte("iso")).Hex() + "  a.iso\n"
	writeFiles(t, dir, map[string]string{"SUMS": sums})
	run("generate-key-pair")
	run("sign-blob", "-y", "--key", "cosign.key", "--tlog-upload=false", "--output-signature", "SUMS.sig", "SUMS")
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	w := newSums(t)
	writeFiles(t, w.dir, map[string]string{"cosign.pub": read("cosign.pub")})
	w.serveFiles(map[string]string{"SUMS": sums, "SUMS.sig": read("SUMS.sig")})
	manifest := fileManifest("sums: {url: '" + isoAt + "SUMS', signature: '" + isoAt + "SUMS.sig', key: cosign.pub}")
	if in := w.lock(manifest).Find(KindFile, "rhel"); in.SHA256 != digest.Of([]byte("iso")) || !strings.HasPrefix(in.Verified.Key, "sha256:") {
		t.Errorf("%+v", in)
	}
	w.serveFiles(map[string]string{"SUMS": sums + "\n"})
	w.fails(manifest, "inputs.files: rhel: the signature of "+isoAt+"SUMS: it is not by the key, or what is signed was altered")
}

func TestParseSums(t *testing.T) {
	a, b := digest.Of([]byte("a")), digest.Of([]byte("b"))
	long := strings.Repeat("ab", 64)
	for _, tt := range []struct {
		text string
		want string // the SHA-256, "sha512", or an error
	}{
		{a.Hex() + "  x.iso\n" + b.Hex() + "  y.iso\n", a.Hex()},
		{a.Hex() + " *x.iso\r\n", a.Hex()},
		{strings.ToUpper(a.Hex()) + "  ./x.iso", a.Hex()},
		{"# Fedora-Cloud\n# x.iso: 100 bytes\nSHA256 (x.iso) = " + a.Hex() + "\n", a.Hex()},
		{"SHA2-256(x.iso)= " + a.Hex(), "is not known"},
		{"SHA512 (x.iso) = " + long + "\nSHA256 (x.iso) = " + a.Hex() + "\n", a.Hex()},
		{long + "  x.iso\n", "sha512"},
		{a.Hex() + "  x.iso\n" + a.Hex() + "  x.iso\n", a.Hex()},
		{a.Hex() + "  x.iso\n" + b.Hex() + "  x.iso\n", "x.iso has two SHA256 checksums"},
		{a.Hex() + "  sub/x.iso\n", "no checksum of \"x.iso\""},
		{a.Hex() + " x.iso\n", "no checksum of"},
		{a.Hex() + "  x.iso.asc\n" + a.Hex() + "  ax.iso\n", "no checksum of"},
		{strings.Repeat("ab", 20) + "  x.iso\n", "proves nothing or is not known (40 digits)"},
		{"MD5 (x.iso) = " + strings.Repeat("ab", 16), "proves nothing or is not known (MD5)"},
		{"SHA256 (x.iso) = abcd", "a damaged SHA256"},
		{strings.Repeat("zz", 32) + "  x.iso\n", "is not in hex"},
		{"", "no checksum of"},
	} {
		got, err := parseSums([]byte(tt.text), "x.iso")
		switch {
		case err != nil && strings.Contains(err.Error(), tt.want):
		case err == nil && got.sha512 != nil && tt.want == "sha512":
		case err == nil && got.sha512 == nil && got.sha256.Hex() == tt.want:
		default:
			t.Errorf("%q: got %s %x, %v; want %s", tt.text, got.sha256, got.sha512, err, tt.want)
		}
	}
}

// sha256sum and sha512sum write what we read, in both forms.
func TestParseSumsReal(t *testing.T) {
	dir := writeFiles(t, t.TempDir(), map[string]string{"x.iso": "iso", "y.iso": "y"})
	for _, name := range []string{"sha256sum", "sha512sum"} {
		for _, args := range [][]string{{"y.iso", "x.iso"}, {"--tag", "y.iso", "x.iso"}, {"-b", "./x.iso"}} {
			cmd := exec.Command(tooltest.Find(t, name), args...)
			cmd.Dir = dir
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			long := sha512.Sum512([]byte("iso"))
			got, err := parseSums(out, "x.iso")
			if err != nil || got.sha512 == nil && got.sha256 != digest.Of([]byte("iso")) || got.sha512 != nil && !bytes.Equal(got.sha512, long[:]) {
				t.Errorf("%s %v: %+v, %v", name, args, got, err)
			}
		}
	}
}

func FuzzParseSums(f *testing.F) {
	a := digest.Of([]byte("a")).Hex()
	for _, s := range []string{a + "  x.iso\n", "SHA256 (x.iso) = " + a + "\n", "SHA512 (./x.iso) = " + a + a + "\r\n", "# x.iso\n" + a + " *x.iso", "SHA256 (x) (x.iso) = 00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sum, err := parseSums(b, "x.iso")
		if err != nil {
			return
		}
		want := sum.sha256.Hex()
		if sum.sha512 != nil {
			want = fmt.Sprintf("%x", sum.sha512)
		}
		if !strings.Contains(strings.ToLower(string(b)), want) || !bytes.Contains(b, []byte("x.iso")) {
			t.Errorf("%q gives %s", b, want)
		}
	})
}

func TestAuthCheck(t *testing.T) {
	secret := AuthBasic{Username: "me", Password: "$PASSWORD"}
	good := []Auth{
		{Basic: &secret}, {Basic: &AuthBasic{Username: "me", Password: "./password"}},
		{Bearer: &AuthBearer{Token: "/run/secrets/token", Header: "X-Api-Key"}}, {Bearer: &AuthBearer{Token: "token ${GITHUB_TOKEN}", Raw: true}},
		{Basic: &AuthBasic{Username: "$REALM-me", Password: "$$$A-$B$$"}},
		{OfflineToken: &AuthOfflineToken{Token: "${OFFLINE}"}},
		{OfflineToken: &AuthOfflineToken{Token: "$T", TokenURL: "http://127.0.0.1:8080/token"}},
		{TLS: &AuthTLS{Cert: "certs/a.pem", Key: "$KEY"}, Proxy: "http://proxy.example:3128", Basic: &secret}, {TLS: &AuthTLS{CA: "ca.pem"}}, {Proxy: "_none_"}, {Proxy: "$PROXY"},
	}
	for _, a := range good {
		if err := a.check(); err != nil {
			t.Errorf("%+v: %v", a, err)
		}
	}
	if err := (*Auth)(nil).check(); err != nil {
		t.Error(err)
	}
	const literal = "hunter2"
	for _, tt := range []struct {
		a    Auth
		want string
	}{
		{Auth{}, "want one of tls, basic, bearer, offlineToken, proxy"},
		{Auth{Basic: &secret, Bearer: &AuthBearer{Token: "$T"}}, "want one of basic, bearer"},
		{Auth{Basic: &AuthBasic{Username: "me", Password: literal}}, `basic: password: want "$NAME", or the path of a file`},
		{Auth{Basic: &AuthBasic{Username: "me", Password: "a/" + literal + "=="}}, "basic: password: want"},
		{Auth{Basic: &AuthBasic{Username: "me", Password: "$a$" + literal}}, "basic: password: want"},
		{Auth{Basic: &AuthBasic{Username: "me", Password: Secret("$2y$10$A" + literal)}}, "basic: password: want"},
		{Auth{Basic: &AuthBasic{Username: "me", Password: Secret(literal + "$A" + literal)}}, "basic: password: want"},
		{Auth{Basic: &AuthBasic{Username: "me", Password: Secret(literal + "$$A")}}, "basic: password: want"},
		{Auth{Basic: &AuthBasic{Username: "me", Password: Secret("$A\n" + literal)}}, "basic: password: want"},
		{Auth{Basic: &AuthBasic{Username: "me"}}, "basic: password: it is missing"},
		{Auth{Basic: &AuthBasic{Password: "$X"}}, "basic: username: it is missing"},
		{Auth{Basic: &AuthBasic{Username: "me:" + literal, Password: "$X"}}, "basic: username: it has a colon"},
		{Auth{Bearer: &AuthBearer{Token: Secret(strings.Repeat(literal+"/", 50))}}, "bearer: token: want"},
		{Auth{Bearer: &AuthBearer{Token: "$T", Header: "X: " + literal}}, "bearer: header: want"},
		{Auth{OfflineToken: &AuthOfflineToken{Token: literal}}, "offlineToken: token: want"},
		{Auth{OfflineToken: &AuthOfflineToken{Token: "$T", TokenURL: "http://sso.example/"}}, "offlineToken: tokenURL: want an https address"},
		{Auth{OfflineToken: &AuthOfflineToken{Token: "$T", TokenURL: "https://me:" + literal + "@sso.example/"}}, "offlineToken: tokenURL: want an https address"},
		{Auth{TLS: &AuthTLS{}}, "tls: want cert and key, or ca"},
		{Auth{TLS: &AuthTLS{Key: "k"}}, "tls: a key without its cert"},
		{Auth{TLS: &AuthTLS{Cert: "-----BEGIN CERTIFICATE-----\n" + literal}}, "tls: want the paths of PEM files"},
		{Auth{Proxy: "http://me:" + literal + "@proxy.example"}, "proxy: a password does not belong here"},
		{Auth{Proxy: "ftp://proxy.example"}, `proxy: scheme "ftp"`},
		{Auth{Proxy: literal}, "proxy: want an address"},
	} {
		err := tt.a.check()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), literal) {
			t.Errorf("the error has the secret: %v", err)
		}
	}
}

func TestInputErrors(t *testing.T) {
	for more, want := range map[string]string{
		"files: [{name: a, url: 'https://me:hunter2@x.example/a', sha256: '" + strings.Repeat("1", 64) + "'}]":        `inputs.files[0].url: "https://me:xxxxx@x.example/a": a name and password do not belong into a manifest`,
		"files: [{name: a, url: b, mirrors: ['https://x.example/b']}]":                                                "inputs.files[0]: mirrors and auth are for an address",
		"files: [{name: a, url: 'https://x.example/a', mirrors: [b], sha256: '" + strings.Repeat("1", 64) + "'}]":     `inputs.files[0].mirrors[0]: got "b"; want an address`,
		"files: [{name: a, url: 'https://x.example/a', sha256: x, sums: {url: b, key: KEY}}]":                         "inputs.files[0].sums: want sha256 or sums, not both",
		"files: [{name: a, url: 'https://x.example/a', sums: {key: KEY}}]":                                            "inputs.files[0].sums.url: the address of the checksums is needed",
		"files: [{name: a, url: 'https://x.example/a', sums: {url: b}}]":                                              `inputs.files[0].sums.key: got ""; want the path of a public key`,
		"files: [{name: a, url: 'https://x.example/a', auth: {basic: {username: me, password: hunter2}}, sha256: x}]": "inputs.files[0].auth: basic: password: want",
		"oci: [{name: a, ref: pause}]":                                        `inputs.oci[0].ref: "pause" names no registry`,
		"oci: [{name: A, ref: 'quay.io/a:1'}]":                                "inputs.oci[0].name: got",
		"oci: [{name: a, ref: 'quay.io/a:1'}, {name: a, ref: 'quay.io/a:1'}]": `two inputs are called "a"`,
		"oci: [{name: a, ref: 'quay.io/a:1', sbom: yes}]":                     `inputs.oci[0].sbom: got "yes"; want import`,
		"oci: [{name: a, ref: 'quay.io/a:1', verify: {}}]":                    "inputs.oci[0].verify: want a key, or an identity and its issuer",
		"oci: [{name: a, ref: 'quay.io/a:1', verify: {identity: a}}]":         "inputs.oci[0].verify: want a key, or an identity and its issuer",
		"oci: [{name: a, ref: 'quay.io/a:1', verify: {key: a, issuer: b}}]":   "inputs.oci[0].verify: want a key, or an identity and its issuer, not both",
		"oci: [{name: a, ref: 'quay.io/a:1', verify: {key: /etc/key}}]":       `inputs.oci[0].verify.key: got "/etc/key"; want the path of a public key, relative`,
		"oci: [{name: a, ref: 'quay.io/a:1'}]\n  files: [{name: a, url: b}]":  `two inputs are called "a"`,
	} {
		_, err := ParseManifest("m", []byte(strings.Replace(ociHead, "REPOS", "https://repo.example", 1)+"inputs:\n  "+more+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %q", more, err, want)
		}
	}
}
