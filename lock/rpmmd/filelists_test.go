package rpmmd

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

const oneFilelists = `<filelists packages="2"><package pkgid="aa" name="x" arch="noarch"><version epoch="0" ver="1" rel="1"/>
<file>/a&amp;b</file><file type="dir">/c</file></package><package pkgid="bb" name="y" arch="noarch"><file type="ghost">/d</file></package></filelists>`

func TestParseFilelists(t *testing.T) {
	var got []string
	err := ParseFilelists(strings.NewReader(oneFilelists), func(id string, path []byte) error {
		got = append(got, id+string(path))
		return nil
	})
	if want := "aa/a&b aa/c bb/d"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
	stop := errors.New("stop")
	if err := ParseFilelists(strings.NewReader(oneFilelists), func(string, []byte) error { return stop }); err != stop {
		t.Errorf("got %v, want the visitor's error", err)
	}
	for _, c := range []struct{ in, want string }{
		{strings.Replace(oneFilelists, ` pkgid="aa"`, "", 1), "without pkgid"},
		{strings.Replace(oneFilelists, "</filelists>", "", 1), "unexpected EOF"},
		{"<otherdata/>", "want <filelists>"},
	} {
		err := ParseFilelists(strings.NewReader(c.in), func(string, []byte) error { return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "filelists: line ") {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
	none := func(string, []byte) error { return nil }
	if err := parseFilelists(io.LimitReader(strings.NewReader(oneFilelists), 1<<20), 10, none); err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
		t.Errorf("got %v, want the limit", err)
	}
}

func TestParseFilelistsC9S(t *testing.T) {
	pkgs, paths := map[string]bool{}, 0
	err := ParseFilelists(open(t, "rpm-md/c9s-baseos/repodata/*-filelists.xml.gz"), func(id string, path []byte) error {
		pkgs[id] = true
		paths++
		if path[0] != '/' {
			t.Fatalf("path %q", path)
		}
		return nil
	})
	if err != nil || len(pkgs) < 1000 || paths < 50000 {
		t.Errorf("got %d packages and %d paths, %v", len(pkgs), paths, err)
	}
}

func FuzzFilelists(f *testing.F) {
	seed(f, "rpm-md/*/repodata/*-filelists.xml.gz", oneFilelists)
	f.Fuzz(func(t *testing.T, in []byte) {
		_ = parseFilelists(bytes.NewReader(in), 1<<20, func(id string, path []byte) error {
			if id == "" {
				t.Error("a path without a package")
			}
			return nil
		})
	})
}
