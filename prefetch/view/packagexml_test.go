package view

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/digest"
	"caisson/prefetch/rpmsig"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		`a<b>&"c"`: "a&lt;b&gt;&amp;&#34;c&#34;", "caf\xe9": "café", "a\x00\x1bb\tc": "ab&#x9;c", "\ufffe": "",
	} {
		if got := escape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzDescribe describes whatever calls itself a package: an error, or XML
// that can be read.
func FuzzDescribe(f *testing.F) {
	names, err := filepath.Glob("../../../shared/data/rpms/*.rpm")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 64<<10)]) // the headers are at the front
	}
	f.Add(pkg{name: "a", version: "1", arch: "noarch", requires: []string{"b>=1:2-3"}}.build(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := rpmsig.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		out, err := describePackage(p, digest.Of(b), int64(len(b)), "a.rpm")
		if err != nil {
			return
		}
		for _, part := range out {
			d := xml.NewDecoder(strings.NewReader(strings.ReplaceAll(string(part), "rpm:", "")))
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("%v in %q", err, part)
				}
			}
		}
	})
}
