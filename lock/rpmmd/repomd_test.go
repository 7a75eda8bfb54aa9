package rpmmd

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

const oneRepomd = `<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>17</revision><tags><content>x</content></tags>
<data type="primary"><checksum type="sha256">` + zeros + `</checksum><open-checksum type="sha256">` + zeros + `</open-checksum>
<location href="repodata/primary.xml.gz"/><timestamp>1</timestamp><size>5</size><open-size>9</open-size></data></repomd>`

func TestParseRepomd(t *testing.T) {
	got, err := ParseRepomd(strings.NewReader(oneRepomd))
	if err != nil {
		t.Fatal(err)
	}
	sum := Checksum{"sha256", zeros}
	want := &Repomd{Revision: "17", Data: []Data{{Type: "primary", Location: "repodata/primary.xml.gz", Checksum: sum, OpenChecksum: sum, Size: 5, OpenSize: 9}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.Find("primary") == nil || got.Find("filelists") != nil {
		t.Error("Find does not find what is there, or finds what is not")
	}
	with := func(old, new string) string { return strings.Replace(oneRepomd, old, new, 1) }
	data := oneRepomd[strings.Index(oneRepomd, "<data") : strings.Index(oneRepomd, "</data>")+7]
	for _, c := range []struct{ in, want string }{
		{with("repodata/primary", "../primary"), "leaves the repository"},
		{with("repodata/primary", "//host/primary"), "not a relative path"},
		{with("<location ", `<location xml:base="http://other/" `), "outside of the repository"},
		{with(data, data+data), `data "primary" is there twice`},
		{with(`<location href="repodata/primary.xml.gz"/>`, ""), "location or checksum is missing"},
		{with("<size>5", "<size>five"), `size "five" is not a number`},
		{with("</repomd>", ""), "unexpected EOF"},
	} {
		if _, err := ParseRepomd(strings.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "repomd: line ") {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

func TestParseRepomdC9S(t *testing.T) {
	got, err := ParseRepomd(open(t, "rpm-md/c9s-baseos/repodata/repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	if d := got.Find("primary"); d == nil || d.Size != 1063488 || d.OpenSize != 8471009 {
		t.Errorf("got %+v", d)
	}
}

func FuzzRepomd(f *testing.F) {
	seed(f, "rpm-md/*/repodata/repomd.xml", oneRepomd)
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ParseRepomd(bytes.NewReader(in))
		if err != nil {
			return
		}
		for _, d := range m.Data {
			if checkHref(d.Location) != nil || d.Checksum.check() != nil || m.Find(d.Type) == nil {
				t.Errorf("accepted %+v", d)
			}
		}
	})
}
