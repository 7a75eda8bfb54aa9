package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/rpmpack"
	"github.com/rogpeppe/go-internal/testscript"
)

// when is the time of all that tests make.
var when = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

// cmdMakeRepo makes a repository of real RPMs, signed with a key of its own,
// which it leaves in DIR/KEY, and its metadata, signed as well; DIR/OTHER is the
// other key, DIR.private the own one's private half, for revoke. A line of the
// specification is a package:
//
// Further arguments are files of metadata, of the type that they are called:
// modules.yaml, updateinfo.xml.
//
//	NAME [EPOCH:]VERSION-RELEASE ARCH [requires=A,B] [recommends=A] [conflicts=A] [provides=A] [obsoletes=A] [signed=no|other]
func cmdMakeRepo(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: mkrepo DIR SPEC [FILE]...")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Join(dir, "repodata"), 0o755))
	key, other := newTestKey(ts), newTestKey(ts)
	var primary bytes.Buffer
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		if f := strings.Fields(line); len(f) >= 3 {
			addPackage(ts, &primary, dir, f, key, other)
			n++
		}
	}
	text := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="%d">
%s</metadata>
`, n, primary.String())
	packed := gzipped(ts, text)
	ts.Check(os.WriteFile(filepath.Join(dir, "repodata/primary.xml.gz"), packed, 0o644))
	var more strings.Builder
	for _, name := range args[2:] {
		b := ts.ReadFile(name)
		name = filepath.Base(name)
		ts.Check(os.WriteFile(filepath.Join(dir, "repodata", name), []byte(b), 0o644))
		fmt.Fprintf(&more, `<data type=%q><checksum type="sha256">%x</checksum><location href="repodata/%s"/><size>%d</size></data>
`, strings.TrimSuffix(name, filepath.Ext(name)), sha256.Sum256([]byte(b)), name, len(b))
	}
	repomd := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo">
<revision>%d</revision>
<data type="primary"><checksum type="sha256">%x</checksum><open-checksum type="sha256">%x</open-checksum>
<location href="repodata/primary.xml.gz"/><timestamp>%d</timestamp><size>%d</size><open-size>%d</open-size></data>
%s</repomd>
`, when.Unix(), sha256.Sum256(packed), sha256.Sum256([]byte(text)), when.Unix(), len(packed), len(text), more.String())
	ts.Check(os.WriteFile(filepath.Join(dir, "repodata/repomd.xml"), []byte(repomd), 0o644))
	sig, err := key.sign([]byte(repomd))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "repodata/repomd.xml.asc"), armored(ts, "PGP SIGNATURE", func(w io.Writer) error {
		_, err := w.Write(sig)
		return err
	}), 0o644))
	ts.Check(os.WriteFile(filepath.Join(dir, "KEY"), armored(ts, publicBlock, key.entity.Serialize), 0o644))
	ts.Check(os.WriteFile(filepath.Join(dir, "OTHER"), armored(ts, publicBlock, other.entity.Serialize), 0o644))
	ts.Check(os.WriteFile(dir+".private", armored(ts, "PGP PRIVATE KEY BLOCK", func(w io.Writer) error {
		return key.entity.SerializePrivate(w, key.config)
	}), 0o600))
}

const publicBlock = "PGP PUBLIC KEY BLOCK"

// cmdRevoke writes a key's public half with a revocation of a year later than all
// that it signed: compromised, superseded, or none, which gives no reason.
func cmdRevoke(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: revoke PRIVATE REASON PUBLIC")
	}
	keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	reason, ok := map[string]packet.ReasonForRevocation{
		"compromised": packet.KeyCompromised, "superseded": packet.KeySuperseded, "none": packet.NoReason,
	}[args[1]]
	if !ok {
		ts.Fatalf("there is no reason %s", args[1])
	}
	later := func() time.Time { return when.AddDate(1, 0, 0) }
	ts.Check(keys[0].RevokeKey(reason, "", &packet.Config{Time: later}))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), armored(ts, publicBlock, keys[0].Serialize), 0o644))
}

func gzipped(ts *testscript.TestScript, s string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, s)
	ts.Check(err)
	ts.Check(w.Close())
	return b.Bytes()
}

// addPackage writes an RPM and its entry in the metadata.
func addPackage(ts *testscript.TestScript, primary *bytes.Buffer, dir string, f []string, key, other *testKey) {
	epoch, evr := "0", f[1]
	if e, rest, ok := strings.Cut(evr, ":"); ok {
		epoch, evr = e, rest
	}
	version, release, _ := strings.Cut(evr, "-")
	md := rpmpack.RPMMetaData{Name: f[0], Version: version, Release: release, Arch: f[2], BuildTime: when, Compressor: "gzip", Summary: f[0]}
	if epoch != "0" {
		fmt.Sscan(epoch, &md.Epoch)
	}
	own := fmt.Sprintf(`<rpm:entry name=%q flags="EQ" epoch=%q ver=%q rel=%q/>`, f[0], epoch, version, release)
	deps := map[string]string{"provides": own}
	signer := key
	for _, kv := range f[3:] {
		k, v, _ := strings.Cut(kv, "=")
		switch kv {
		case "signed=no":
			signer = nil
		case "signed=other":
			signer = other
		default:
			for d := range strings.SplitSeq(v, ",") {
				deps[k] += fmt.Sprintf("<rpm:entry name=%q/>", d)
			}
		}
	}
	r, err := rpmpack.NewRPM(md)
	ts.Check(err)
	r.AddFile(rpmpack.RPMFile{Name: "/usr/share/" + f[0], Body: []byte(strings.Repeat(f[0]+f[1], 2000)), Mode: 0o644, Owner: "root", Group: "root"})
	if signer != nil {
		r.SetPGPSigner(signer.sign)
	}
	var b bytes.Buffer
	ts.Check(r.Write(&b))
	file := fmt.Sprintf("%s-%s.%s.rpm", f[0], evr, f[2])
	ts.Check(os.WriteFile(filepath.Join(dir, file), b.Bytes(), 0o644))
	fmt.Fprintf(primary, `<package type="rpm"><name>%s</name><arch>%s</arch><version epoch=%q ver=%q rel=%q/>
<checksum type="sha256" pkgid="YES">%x</checksum><summary>%s</summary><description/><packager/><url/>
<time file="%d" build="%d"/><size package="%d" installed="1" archive="1"/><location href=%q/>
<format><rpm:license>MIT</rpm:license><rpm:vendor/><rpm:group/><rpm:buildhost/><rpm:sourcerpm>%s-%s.src.rpm</rpm:sourcerpm><rpm:header-range start="1" end="2"/>
`, f[0], f[2], epoch, version, release, sha256.Sum256(b.Bytes()), f[0], when.Unix(), when.Unix(), b.Len(), file, f[0], evr)
	for _, k := range []string{"provides", "requires", "conflicts", "obsoletes", "recommends"} {
		if deps[k] != "" {
			fmt.Fprintf(primary, "<rpm:%s>%s</rpm:%s>", k, deps[k], k)
		}
	}
	fmt.Fprintln(primary, "</format></package>")
}

// testKey is an OpenPGP key.
type testKey struct {
	entity *openpgp.Entity
	config *packet.Config
}

func newTestKey(ts *testscript.TestScript) *testKey {
	c := &packet.Config{Time: func() time.Time { return when }, Algorithm: packet.PubKeyAlgoEdDSA}
	e, err := openpgp.NewEntity("Test", "", "test@example.org", c)
	ts.Check(err)
	return &testKey{e, c}
}

func (k *testKey) sign(b []byte) ([]byte, error) {
	var out bytes.Buffer
	err := openpgp.DetachSign(&out, k.entity, bytes.NewReader(b), k.config)
	return out.Bytes(), err
}

func armored(ts *testscript.TestScript, kind string, write func(io.Writer) error) []byte {
	var b bytes.Buffer
	w, err := armor.Encode(&b, kind, nil)
	ts.Check(err)
	ts.Check(write(w))
	ts.Check(w.Close())
	b.WriteByte('\n')
	return b.Bytes()
}

// cmdServe serves a folder until the script ends.
func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(srv.Close)
	ts.Setenv(args[1], srv.URL)
}
