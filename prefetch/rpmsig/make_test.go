package rpmsig

import (
	"bytes"
	"crypto"
	_ "crypto/md5"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// tagged is one entry of a header that a test makes.
type tagged struct {
	tag, typ, count uint32
	data            []byte
}

func text(tag uint32, s string) tagged {
	return tagged{tag, typeString, 1, append([]byte(s), 0)}
}

func texts(tag uint32, ss ...string) tagged {
	return tagged{tag, typeStringArray, uint32(len(ss)), []byte(strings.Join(ss, "\x00") + "\x00")}
}

func bin(tag uint32, b []byte) tagged { return tagged{tag, typeBin, uint32(len(b)), b} }

func number(tag uint32, n uint32) tagged {
	return tagged{tag, typeInt32, 1, binary.BigEndian.AppendUint32(nil, n)}
}

// makeHeader writes a header structure.
func makeHeader(entries ...tagged) []byte {
	var index, data []byte
	for _, e := range entries {
		for e.typ == typeInt32 && len(data)%4 != 0 {
			data = append(data, 0)
		}
		for _, n := range []uint32{e.tag, e.typ, uint32(len(data)), e.count} {
			index = binary.BigEndian.AppendUint32(index, n)
		}
		data = append(data, e.data...)
	}
	out := []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}
	out = binary.BigEndian.AppendUint32(out, uint32(len(entries)))
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	return append(append(out, index...), data...)
}

// makeRPM puts a package together.
func makeRPM(sig, main, payload []byte) []byte {
	b := make([]byte, leadSize)
	copy(b, []byte{0xed, 0xab, 0xee, 0xdb, 3, 0})
	b = append(b, sig...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return append(append(b, main...), payload...)
}

// mainHeader is the header of a package with a digest of its payload, unless
// digest is empty.
func mainHeader(digest string) []byte {
	entries := []tagged{text(tagName, "hello"), text(tagVersion, "1.0"), text(tagRelease, "2"), number(tagEpoch, 3),
		number(tagBuildTime, 1700000000), text(tagArch, "noarch"), text(tagSourceRPM, "hello-1.0-2.src.rpm")}
	if digest != "" {
		entries = append(entries, texts(tagPayloadDigest, digest), number(tagPayloadDigestAlgo, 8))
	}
	return makeHeader(entries...)
}

func sum(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// when is the time at which the tests' keys and signatures are made.
var when = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

func config(at time.Time) *packet.Config {
	return &packet.Config{Time: func() time.Time { return at }, Algorithm: packet.PubKeyAlgoEdDSA}
}

func newKey(t testing.TB, c *packet.Config) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("Test", "", "test@example.org", c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// public writes the key out and reads it back as ReadKeys does.
func public(t testing.TB, e *openpgp.Entity) Keyring {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, "PGP PUBLIC KEY BLOCK", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	k, err := ReadKeys(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign signs data with one key of an entity, whatever that key is for.
func sign(t testing.TB, key *packet.PrivateKey, hash crypto.Hash, at time.Time, data ...[]byte) []byte {
	t.Helper()
	s := &packet.Signature{Version: key.Version, SigType: packet.SigTypeBinary, PubKeyAlgo: key.PubKeyAlgo, Hash: hash,
		CreationTime: at, IssuerKeyId: &key.KeyId, IssuerFingerprint: key.Fingerprint}
	h, err := s.PrepareSign(config(at))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range data {
		h.Write(d)
	}
	if err := s.Sign(h, key, config(at)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func check(k Keyring, rpm []byte) (Signature, error) {
	return k.CheckRPM(bytes.NewReader(rpm), int64(len(rpm)))
}

func TestMadePackages(t *testing.T) {
	payload := bytes.Repeat([]byte("payload"), 1000)
	main, bare := mainHeader(sum(payload)), mainHeader("")
	lying := mainHeader(sum([]byte("another payload")))
	key, stranger := newKey(t, config(when)), newKey(t, config(when))
	k := public(t, key)
	by := func(e *openpgp.Entity, data ...[]byte) []byte {
		return sign(t, e.PrivateKey, crypto.SHA256, when, data...)
	}
	b64 := base64.StdEncoding.EncodeToString
	none := text(999, "")

	for _, c := range []struct {
		name string
		sig  []tagged
		main []byte
		err  error  // nil: good
		has  string // what the error, or Covers, has in it
	}{
		{"header, RSA tag", []tagged{bin(sigRSAHeader, by(key, main))}, main, nil, "the header's digest"},
		{"header, OpenPGP tag", []tagged{texts(sigOpenPGP, b64(by(key, main)))}, main, nil, "the header's digest"},
		{"two keys, one trusted", []tagged{texts(sigOpenPGP, b64(by(stranger, main)), b64(by(key, main)))}, main, nil, "the header's digest"},
		{"header and payload", []tagged{bin(sigGPG, by(key, bare, payload))}, bare, nil, "header and payload"},
		{"both", []tagged{bin(sigRSAHeader, by(key, main)), bin(sigPGP, by(key, main, payload))}, main, nil, "the header's digest"},
		{"unsigned", []tagged{none}, main, ErrUnsigned, ""},
		{"another's", []tagged{bin(sigRSAHeader, by(stranger, main))}, main, nil, "not trusted"},
		{"header only, no digest", []tagged{bin(sigRSAHeader, by(key, bare))}, bare, ErrPayload, "no SHA-2 digest"},
		{"payload of another", []tagged{bin(sigRSAHeader, by(key, lying))}, lying, ErrPayload, "differs"},
		{"payload of another, all signed", []tagged{bin(sigPGP, by(key, lying, payload))}, lying, ErrPayload, "differs"},
		{"of another header", []tagged{bin(sigRSAHeader, by(key, bare))}, main, ErrBad, ""},
		{"one good, one bad", []tagged{bin(sigRSAHeader, by(key, main)), bin(sigPGP, by(key, bare))}, main, ErrBad, ""},
		{"no packet", []tagged{bin(sigRSAHeader, []byte("nothing"))}, main, ErrBad, ""},
		{"no base64", []tagged{texts(sigOpenPGP, "%")}, main, ErrBad, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := check(k, makeRPM(makeHeader(c.sig...), c.main, payload))
			if err == nil {
				if c.err != nil || !strings.Contains(s.Covers, c.has) || c.has == "not trusted" {
					t.Fatalf("got %+v, want %v %s", s, c.err, c.has)
				}
				if s.KeyFingerprint != k.Fingerprints()[0] || !s.Time.Equal(when) || s.Algo != "EdDSA/SHA256" {
					t.Errorf("got %+v", s)
				}
				return
			}
			if c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.has) ||
				c.err == nil && c.has != "not trusted" {
				t.Fatalf("got %v, want %v %s", err, c.err, c.has)
			}
		})
	}
}

// What a package says of itself has to be so, signed or not.
func TestDigests(t *testing.T) {
	payload := []byte("payload")
	main, bare := mainHeader(sum(payload)), mainHeader("")
	key := newKey(t, config(when))
	k := public(t, key)
	for _, c := range []struct {
		name   string
		digest string // of the header, in the signature header
		main   []byte
		err    error
	}{
		{"both", sum(main), main, nil},
		{"header", sum(bare), bare, nil},
		{"payload", "", main, nil},
		{"neither", "", bare, nil},
		{"another header", sum(bare), main, ErrDigest},
		{"no digest", "none", main, ErrDigest},
		{"another payload", "", mainHeader(sum([]byte("another"))), ErrDigest},
	} {
		sig := []tagged{text(999, "")}
		if c.digest != "" {
			sig = append(sig, text(sigSHA256, c.digest))
		}
		p := openBytes(t, makeRPM(makeHeader(sig...), c.main, payload))
		if err := p.CheckDigests(); !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.err)
		}
		sig = append(sig, bin(sigGPG, sign(t, key.PrivateKey, crypto.SHA256, when, c.main, payload)))
		if s, err := check(k, makeRPM(makeHeader(sig...), c.main, payload)); (err == nil) != (c.err == nil) {
			t.Errorf("%s, signed: got %+v, %v, want %v", c.name, s, err, c.err)
		}
	}
	large := makeHeader(text(sigSHA256, strings.Repeat("a", maxStringValue+1)))
	if err := openBytes(t, makeRPM(large, main, payload)).CheckDigests(); err == nil {
		t.Error("a digest without an end is taken")
	}
}

func TestKeysInTime(t *testing.T) {
	payload := []byte("payload")
	main := mainHeader(sum(payload))
	rpm := func(key *packet.PrivateKey, at time.Time) []byte {
		return makeRPM(makeHeader(bin(sigRSAHeader, sign(t, key, crypto.SHA512, at, main))), main, payload)
	}
	year := 365 * 24 * time.Hour
	brief := config(when)
	brief.KeyLifetimeSecs = uint32(year / time.Second)
	short := newKey(t, brief)

	revoked := newKey(t, config(when))
	if err := revoked.RevokeKey(packet.KeyCompromised, "", config(when.Add(year))); err != nil {
		t.Fatal(err)
	}
	subs := newKey(t, config(when))
	if err := subs.AddSigningSubkey(config(when)); err != nil {
		t.Fatal(err)
	}
	signing := subs.Subkeys[1]
	gone := newKey(t, config(when))
	if err := gone.AddSigningSubkey(config(when)); err != nil {
		t.Fatal(err)
	}
	if err := gone.RevokeSubkey(&gone.Subkeys[1], packet.KeyRetired, "", config(when.Add(year))); err != nil {
		t.Fatal(err)
	}
	superseded := newKey(t, config(when))
	if err := superseded.RevokeKey(packet.KeySuperseded, "", config(when.Add(year))); err != nil {
		t.Fatal(err)
	}
	unsaid := newKey(t, config(when))
	if err := unsaid.RevokeKey(packet.NoReason, "", config(when.Add(year))); err != nil {
		t.Fatal(err)
	}
	weak := config(when)
	weak.Algorithm, weak.RSABits = packet.PubKeyAlgoRSA, 1024

	for _, c := range []struct {
		name string
		e    *openpgp.Entity
		key  *packet.PrivateKey
		at   time.Time
		err  string // empty: good
	}{
		{"in its life", short, short.PrivateKey, when.Add(year / 2), ""},
		{"expired", short, short.PrivateKey, when.Add(2 * year), "after the key expired"},
		{"not yet made", short, short.PrivateKey, when.Add(-time.Hour), "before the key"},
		{"compromised later", revoked, revoked.PrivateKey, when, "the key is revoked (2025-05-01T12:00:00Z): compromised"},
		{"revoked later, and nobody says why", unsaid, unsaid.PrivateKey, when, "the key is revoked (2025-05-01T12:00:00Z), and nothing says"},
		{"superseded later", superseded, superseded.PrivateKey, when.Add(year - time.Second), ""},
		{"superseded before", superseded, superseded.PrivateKey, when.Add(year), "the key is revoked (2025-05-01T12:00:00Z): superseded"},
		{"a subkey", subs, signing.PrivateKey, when.Add(time.Hour), ""},
		{"a subkey that was retired later", gone, gone.Subkeys[1].PrivateKey, when, ""},
		{"a subkey that was retired before", gone, gone.Subkeys[1].PrivateKey, when.Add(2 * year), "the subkey is revoked (2025-05-01T12:00:00Z): retired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := public(t, c.e)
			s, err := check(k, rpm(c.key, c.at))
			if c.err == "" {
				if err != nil || s.KeyFingerprint != k.Fingerprints()[0] {
					t.Fatalf("got %+v, %v", s, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("got %+v, %v, want %s", s, err, c.err)
			}
		})
	}
	if e, err := openpgp.NewEntity("Weak", "", "", weak); err == nil {
		if _, err := check(public(t, e), rpm(e.PrivateKey, when)); err == nil || !strings.Contains(err.Error(), "1024 bits") {
			t.Errorf("RSA with 1024 bits: got %v", err)
		}
	}
}

// signV3 makes a version 3 signature packet, as rpm before 4.14 did.
func signV3(t testing.TB, key *packet.PrivateKey, id byte, h crypto.Hash, at time.Time, data []byte) []byte {
	t.Helper()
	body, digest := v3Body(key, id, h, at, data)
	sig, err := rsa.SignPKCS1v15(nil, key.PrivateKey.(*rsa.PrivateKey), h, digest)
	if err != nil {
		t.Fatal(err)
	}
	return v3Packet(append(binary.BigEndian.AppendUint16(body, uint16(8*len(sig))), sig...))
}

// v3Body is a version 3 signature up to its numbers, and what these sign.
func v3Body(key *packet.PrivateKey, id byte, h crypto.Hash, at time.Time, data []byte) (body, digest []byte) {
	suffix := binary.BigEndian.AppendUint32([]byte{byte(packet.SigTypeBinary)}, uint32(at.Unix()))
	d := h.New()
	d.Write(data)
	d.Write(suffix)
	digest = d.Sum(nil)
	body = append([]byte{3, 5}, suffix...)
	body = binary.BigEndian.AppendUint64(body, key.KeyId)
	return append(body, byte(key.PubKeyAlgo), id, digest[0], digest[1]), digest
}

func v3Packet(body []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0x89}, uint16(len(body))), body...) // RFC 4880, section 4.2.1
}

func TestVersion3(t *testing.T) {
	c := config(when)
	c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 2048
	key := newKey(t, c)
	k := public(t, key)
	payload := []byte("payload")
	main := mainHeader(sum(payload))
	for _, v := range []struct {
		id  byte
		h   crypto.Hash
		err string
	}{
		{8, crypto.SHA256, ""}, {9, crypto.SHA384, ""}, {10, crypto.SHA512, ""}, {11, crypto.SHA224, ""},
		{1, crypto.MD5, "RSA/MD5, which proves nothing"}, {2, crypto.SHA1, "RSA/SHA-1, which proves nothing"},
		{8, crypto.SHA512, "bad signature"},
	} {
		s, err := check(k, makeRPM(makeHeader(bin(sigRSAHeader, signV3(t, key.PrivateKey, v.id, v.h, when, main))), main, payload))
		switch {
		case v.err == "" && (err != nil || !s.Time.Equal(when)):
			t.Errorf("%s: got %+v, %v", v.h, s, err)
		case v.err != "" && (!errors.Is(err, ErrBad) || !strings.Contains(err.Error(), v.err)):
			t.Errorf("%s: got %v, want %s", v.h, err, v.err)
		}
	}
	good := signV3(t, key.PrivateKey, 8, crypto.SHA256, when, main)
	for n := range good {
		if _, err := check(k, makeRPM(makeHeader(bin(sigRSAHeader, good[:max(n, 1)])), main, payload)); err == nil {
			t.Errorf("cut to %d bytes: no error", n)
		}
	}
}

func TestHeaderFields(t *testing.T) {
	rpm := makeRPM(makeHeader(text(999, "")), mainHeader(""), nil)
	p, err := Open(bytes.NewReader(rpm), int64(len(rpm)))
	if err != nil {
		t.Fatal(err)
	}
	if p.NEVRA() != "hello-3:1.0-2.noarch" || p.BuildTime != 1700000000 || p.SourceRPM != "hello-1.0-2.src.rpm" {
		t.Errorf("got %s, %d, %s", p.NEVRA(), p.BuildTime, p.SourceRPM)
	}
	d, err := p.HeaderDigest()
	if want := sum(mainHeader("")); err != nil || d.Hex() != want {
		t.Errorf("got %s, %v, want %s", d, err, want)
	}
	src := makeRPM(makeHeader(text(999, "")),
		makeHeader(text(tagName, "a"), text(tagVersion, "1"), text(tagRelease, "1"), text(tagArch, "x86_64")), nil)
	if p, err = Open(bytes.NewReader(src), int64(len(src))); err != nil || p.NEVRA() != "a-1-1.src" {
		t.Errorf("a source package: got %+v, %v", p, err)
	}
}

func TestBadHeaders(t *testing.T) {
	huge := makeHeader(text(tagName, "x"))
	binary.BigEndian.PutUint32(huge[12:], 0xffffffff) // 4 GiB of data
	many := makeHeader(text(tagName, "x"))
	binary.BigEndian.PutUint32(many[8:], 0x7fffffff)
	outside := makeHeader(text(tagName, "x"))
	binary.BigEndian.PutUint32(outside[16+8:], 1000)
	good := makeHeader(text(999, ""))
	for name, rpm := range map[string][]byte{
		"empty":           nil,
		"no magic":        make([]byte, 200),
		"data of 4 GiB":   makeRPM(huge, mainHeader(""), nil),
		"2^31 entries":    makeRPM(many, mainHeader(""), nil),
		"outside":         makeRPM(good, outside, nil),
		"a tag twice":     makeRPM(good, makeHeader(text(tagName, "a"), text(tagName, "b")), nil),
		"no name":         makeRPM(good, makeHeader(text(tagVersion, "1")), nil),
		"name is no text": makeRPM(good, makeHeader(number(tagName, 1)), nil),
		"endless name":    makeRPM(good, makeHeader(tagged{tagName, typeString, 1, []byte("abc")}), nil),
	} {
		if p, err := Open(bytes.NewReader(rpm), int64(len(rpm))); err == nil {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}

func TestDetached(t *testing.T) {
	signed := []byte("<repomd/>\n")
	key, stranger := newKey(t, config(when)), newKey(t, config(when))
	k := public(t, key)
	var armored bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&armored, key, bytes.NewReader(signed), config(when)); err != nil {
		t.Fatal(err)
	}
	mine := sign(t, key.PrivateKey, crypto.SHA256, when, signed)
	theirs := sign(t, stranger.PrivateKey, crypto.SHA256, when, signed)
	for _, c := range []struct {
		name, signature, signed, err string
	}{
		{"armored", armored.String(), string(signed), ""},
		{"binary", string(mine), string(signed), ""},
		{"by two", string(theirs) + string(mine), string(signed), ""},
		{"changed", string(mine), "<repomd>\n", "bad signature"},
		{"another's", string(theirs), string(signed), "not trusted"},
		{"empty", "", string(signed), "not signed"},
		{"cut", string(mine[:len(mine)-5]), string(signed), "bad signature"},
		{"large", strings.Repeat("x", maxDetached+1), string(signed), "more than"},
	} {
		s, err := k.CheckDetached(strings.NewReader(c.signed), strings.NewReader(c.signature))
		switch {
		case c.err == "" && (err != nil || s.KeyFingerprint != k.Fingerprints()[0]):
			t.Errorf("%s: got %+v, %v", c.name, s, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: got %+v, %v, want %s", c.name, s, err, c.err)
		}
	}
	if _, err := (Keyring{}).CheckDetached(bytes.NewReader(signed), &armored); err == nil {
		t.Error("the empty keyring trusts somebody")
	}
}

func FuzzRPM(f *testing.F) {
	payload := []byte("payload")
	main := mainHeader(sum(payload))
	key := newKey(f, config(when))
	k := public(f, key)
	f.Add(makeRPM(makeHeader(bin(sigRSAHeader, sign(f, key.PrivateKey, crypto.SHA256, when, main))), main, payload))
	for _, name := range []string{"basesystem-10.0-7.el7.centos.noarch.rpm", "which-0.1.rpm", "indoterm-1.0.1-1.azl3.x86_64.rpm"} {
		f.Add(data(f, name))
	}
	all := k.With(centos(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if _, err := all.Check(p); err == nil && !bytes.Contains(b, []byte("hello")) && !bytes.Contains(b, []byte("basesystem")) {
			t.Errorf("%s is signed", p.NEVRA())
		}
	})
}

func FuzzSignature(f *testing.F) {
	key := newKey(f, config(when))
	k := public(f, key)
	signed := []byte("signed")
	f.Add(sign(f, key.PrivateKey, crypto.SHA256, when, signed))
	b := data(f, "basesystem-10.0-7.el7.centos.noarch.rpm")
	if p, err := Open(bytes.NewReader(b), int64(len(b))); err == nil {
		if v3, err := p.sig.bin(sigRSAHeader); err == nil {
			f.Add(v3)
		}
	}
	all := k.With(centos(f))
	f.Fuzz(func(t *testing.T, sig []byte) {
		all.CheckDetached(bytes.NewReader(signed), bytes.NewReader(sig))
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(data(f, "RPM-GPG-KEY-CentOS-7"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ReadKeys(b); err == nil && len(k.Fingerprints()) == 0 {
			t.Error("no key and no error")
		}
	})
}
