package rpmmd

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// oneMetalink is as MirrorManager writes it.
const oneMetalink = `<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" pubdate="Mon, 01 Apr 2024 00:00:00 GMT" generator="mirrormanager" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="repomd.xml">
   <mm0:timestamp>1711000000</mm0:timestamp>
   <size>4422</size>
   <verification>
    <hash type="md5">` + zeros32 + `</hash>
    <hash type="sha1">` + zeros32 + `00000000</hash>
    <hash type="blake3">what</hash>
    <hash type="sha256">` + zeros + `</hash>
    <hash type="sha512">` + zeros + zeros + `</hash>
   </verification>
   <mm0:alternates>
    <mm0:alternate><mm0:timestamp>1710000000</mm0:timestamp><size>4400</size>
     <verification><hash type="sha256">1111111111111111111111111111111111111111111111111111111111111111</hash></verification></mm0:alternate>
   </mm0:alternates>
   <resources maxconnections="1">
    <url protocol="rsync" type="rsync" location="US" preference="100">rsync://a.example/9/repodata/repomd.xml</url>
    <url protocol="http" type="http" location="US" preference="99">http://b.example/9/repodata/repomd.xml</url>
    <url protocol="https" type="https" location="US" preference="99">https://b.example/9/repodata/repomd.xml</url>
    <url protocol="https" type="https" location="DE" preference="100">https://c.example/9/repodata/repomd.xml</url>
    <url protocol="https" type="https" location="DE" preference="50">https://c.example/9/repodata/repomd.xml</url>
    <url protocol="https" type="https" location="DE" preference="100">https://d.example/9/other.xml</url>
   </resources>
  </file>
  <file name="other"><size>x</size></file>
 </files>
</metalink>`

const zeros32 = "00000000000000000000000000000000"

var ones = strings.Repeat("1", 64)

func TestParseMetalink(t *testing.T) {
	for _, r := range []io.Reader{strings.NewReader(oneMetalink), iotest.HalfReader(strings.NewReader(oneMetalink))} {
		got, err := ParseMetalink(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"https://c.example/9/", "https://b.example/9/", "http://b.example/9/"}; !slices.Equal(got.Mirrors, want) {
			t.Errorf("got %q, want %q", got.Mirrors, want)
		}
		if len(got.Versions) != 2 || got.Versions[0].Size != 4422 || got.Versions[0].Timestamp != 1711000000 || len(got.Versions[0].Checksums) != 4 {
			t.Fatalf("got %+v", got.Versions)
		}
		if v := got.Versions; v[0].SHA256() != zeros || v[1].SHA256() != ones || (&MetalinkVersion{}).SHA256() != "" {
			t.Errorf("got %+v", v)
		}
	}
	with := func(old, new string) string { return strings.Replace(oneMetalink, old, new, 1) }
	for _, c := range []struct{ in, want string }{
		{with(`name="repomd.xml"`, `name="other.xml"`), "names no repomd.xml"},
		{with(`name="other"`, `name="repomd.xml"`), "repomd.xml is there twice"},
		{with("<size>4422", "<size>-1"), `size "-1" is not a number`},
		{with(`preference="99"`, `preference="much"`), `preference "much" is not a number`},
		{with(ones, "11"), "has 2 digits, want 64"},
		{with("</files>", ""), "unexpected end tag"},
		{with("<metalink", "<!DOCTYPE m [<!ENTITY a 'b'>]><metalink"), "internal subset is refused"},
		{with("http://b", "http://&b;"), "entity &b; is not known"},
		{with("https://d.example", strings.Repeat("d", maxToken)), "longer than"},
		{with("<mm0:alternates>", "<mm0:alternates>"+strings.Repeat("<a/>", maxVersions+1)), "more than 100 versions"},
		{with("</verification>", strings.Repeat(`<hash type="sha256">`+zeros+"</hash>", 8)+"</verification>"), "more than 7 checksums"},
		{"<html/>", "want <metalink>"},
		{oneMetalink[:900], "unexpected EOF"},
		{strings.Repeat(" ", MaxMetalink+1), "more than"},
	} {
		if _, err := ParseMetalink(strings.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "metalink: ") {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
	var many strings.Builder
	for i := range MaxMirrors + 1 {
		fmt.Fprintf(&many, "<url>https://m%d.example/repodata/repomd.xml</url>", i)
	}
	if _, err := ParseMetalink(strings.NewReader(with("<resources maxconnections=\"1\">", "<resources>"+many.String()))); err == nil || !strings.Contains(err.Error(), "more than 10000 mirrors") {
		t.Errorf("got %v", err)
	}
}

func TestParseMirrorlist(t *testing.T) {
	for _, c := range []struct {
		in, err string
		want    []string
	}{
		{"# repo = x country = DE\r\n\nhttps://a.example/$basearch/\r\n  http://b.example/  \nrsync://c.example/x\nhttps://a.example/$basearch/\n/no/address\n", "",
			[]string{"https://a.example/$basearch/", "http://b.example/", "rsync://c.example/x"}},
		{"Invalid release/repo/arch combination\n", `no address in it; it says "Invalid release/repo/arch combination"`, nil},
		{"<html><a href='https://a.example/'>\n", `it says "<html>`, nil},
		{"# nothing\n", "no address in it", nil},
		{"", "no address in it", nil},
		{"<?xml version='1.0'?>\n<metalink version='3.0'>\n", "this is a metalink", nil},
		{"https://a.example/\x1b[2J\n", "line 1", nil},
		{"\xff\xfe\n", "is not plain text", nil},
		{strings.Repeat("a", maxMirrorLine+1), "token too long", nil},
		{strings.Repeat("#\n", MaxMetalink/2+1), "more than 4194304 bytes", nil},
	} {
		got, err := ParseMirrorlist(strings.NewReader(c.in))
		if c.err == "" && (err != nil || !slices.Equal(got, c.want)) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%.40q: got %q, %v, want %q, %q", c.in, got, err, c.want, c.err)
		}
	}
	if _, err := ParseMirrorlist(iotest.ErrReader(io.ErrClosedPipe)); err == nil || !strings.Contains(err.Error(), "closed pipe") {
		t.Errorf("got %v", err)
	}
	var many strings.Builder
	for i := range MaxMirrors + 1 {
		fmt.Fprintf(&many, "https://m%d.example/\n", i)
	}
	if _, err := ParseMirrorlist(strings.NewReader(many.String())); err == nil || !strings.Contains(err.Error(), "more than 10000 mirrors") {
		t.Errorf("got %v", err)
	}
}

// oneUpdateinfo is as Fedora and Red Hat write it.
const oneUpdateinfo = `<?xml version="1.0" encoding="UTF-8"?>
<updates><update from="security@example.org" status="final" type="security" version="1.4">
<id>EX-2024:1</id><title>Important: app &amp; lib update</title><issued date="2024-05-01 12:00:00"/><updated date="2024-05-02"/>
<severity>Important</severity><summary>x</summary><description>CVE <![CDATA[<b>]]></description>
<references><reference href="https://example.org/CVE-2024-1" id="CVE-2024-1" type="cve" title="CVE-2024-1"/><other/></references>
<pkglist><collection short="EL"><name>EL</name><module name="m" stream="1" version="2" context="c" arch="x86_64"/>
<package name="app" version="2.0" release="1" epoch="1" arch="x86_64" src="app-2.0-1.src.rpm"><filename>app-2.0-1.x86_64.rpm</filename><sum type="sha256">x</sum></package>
<package name="lib" version="1~rc1" release="1" arch="noarch"/></collection></pkglist></update>
<update type="bugfix"><id>EX-2024:2</id></update></updates>`

func TestParseUpdateinfo(t *testing.T) {
	var got []Advisory
	err := ParseUpdateinfo(iotest.HalfReader(strings.NewReader(oneUpdateinfo)), func(a *Advisory) error {
		got = append(got, *a)
		return nil
	})
	want := []Advisory{{
		ID: "EX-2024:1", Type: "security", Severity: "Important", Title: "Important: app & lib update", Issued: "2024-05-01 12:00:00",
		References: []Reference{{"cve", "CVE-2024-1", "https://example.org/CVE-2024-1", "CVE-2024-1"}},
		Packages:   []AdvisoryPackage{{"app", EVR{1, "2.0", "1"}, "x86_64"}, {"lib", EVR{0, "1~rc1", "1"}, "noarch"}},
	}, {ID: "EX-2024:2", Type: "bugfix"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	none := func(*Advisory) error { return nil }
	if err := ParseUpdateinfo(strings.NewReader(oneUpdateinfo), func(*Advisory) error { return io.ErrClosedPipe }); err != io.ErrClosedPipe {
		t.Errorf("got %v, want the visitor's error", err)
	}
	with := func(old, new string) string { return strings.Replace(oneUpdateinfo, old, new, 1) }
	huge := strings.Repeat(`<package name="a" version="1" release="1" arch="noarch"/>`, maxAdvisory/50)
	for _, c := range []struct{ in, want string }{
		{with("<id>EX-2024:1</id>", ""), `advisory "Important: app & lib update" has no id`},
		{with(` release="1"`, ""), `advisory "EX-2024:1": a package without release`},
		{with(`epoch="1"`, `epoch="x"`), `epoch "x" is not a number`},
		{with("<package ", huge+"<package "), "has more than 16777216 bytes"},
		{with("EX-2024:1", "\x01"), "control character"},
		{with("</updates>", ""), "unexpected EOF"},
		{"<updateinfo/>", "want <updates>"},
	} {
		if err := ParseUpdateinfo(strings.NewReader(c.in), none); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "updateinfo: line ") {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
	if err := parseUpdateinfo(strings.NewReader(oneUpdateinfo), 100, none); err == nil || !strings.Contains(err.Error(), "more than 100 bytes") {
		t.Errorf("got %v, want the limit", err)
	}
}

func FuzzMetalink(f *testing.F) {
	f.Add([]byte(oneMetalink))
	f.Add([]byte("<metalink><files><file name='repomd.xml'/></files></metalink>"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ParseMetalink(bytes.NewReader(in))
		if err != nil {
			return
		}
		if len(m.Versions) == 0 {
			t.Error("no version and no error")
		}
		for _, b := range m.Mirrors {
			if !strings.HasSuffix(b, "/") || !strings.HasPrefix(strings.ToLower(b), "http") {
				t.Errorf("accepted %q", b)
			}
		}
	})
}

func FuzzMirrorlist(f *testing.F) {
	f.Add([]byte("# comment\nhttps://a.example/$basearch/\n"))
	f.Add([]byte("<metalink>"))
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := ParseMirrorlist(bytes.NewReader(in))
		if (err == nil) == (len(list) == 0) {
			t.Errorf("got %q, %v", list, err)
		}
		for _, b := range list {
			if !strings.Contains(b, "://") || strings.ContainsAny(b, "\n\x00") {
				t.Errorf("accepted %q", b)
			}
		}
	})
}

func FuzzUpdateinfo(f *testing.F) {
	f.Add([]byte(oneUpdateinfo))
	f.Add([]byte("<updates/>"))
	f.Fuzz(func(t *testing.T, in []byte) {
		_ = parseUpdateinfo(bytes.NewReader(in), 1<<20, func(a *Advisory) error {
			if a.ID == "" {
				t.Error("an advisory without an id")
			}
			for _, p := range a.Packages {
				if p.Name == "" || p.EVR.Version == "" || p.EVR.Release == "" || p.Arch == "" {
					t.Errorf("accepted %+v", p)
				}
			}
			return nil
		})
	})
}
