package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSuiteSources has a mirror found in what apt says of its sources.
func TestSuiteSources(t *testing.T) {
	const targets = "http://security.example/ bookworm-security main\nhttp://mirror.example/debian/ bookworm contrib\nhttp://mirror.example/debian/ bookworm main\nhttp://other.example/ bookworm main\n"
	if got, err := mirrorOf(targets, "bookworm"); err != nil || got != "http://mirror.example/debian/" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, release := range []string{"trixie", ""} {
		if _, err := mirrorOf(targets, release); err == nil || !strings.Contains(err.Error(), "is in none of its sources") {
			t.Errorf("%q: got %v", release, err)
		}
	}
	for text, want := range map[string]string{
		"ID=debian\nVERSION_CODENAME=bookworm\n": "bookworm", "VERSION_CODENAME=\"noble\"\n": "noble", "ID=arch\n": "",
	} {
		if got := codename(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestExisting has a program of its own for apt-cache.
func TestExisting(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "apt-cache"), []byte("#!/bin/sh\nprintf 'cargo\\nbash\\ngcc-14-base\\ndpkg\\ngcc-14-base-doc\\n'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	a := &apt{dir: t.TempDir()}
	got, err := a.existing(context.Background(), []string{"bash", "cargo-web|cargo", "systemd-repart|", "missing|absent"})
	if want := []string{"bash", "cargo", "missing"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	got, err = a.dropped(context.Background())
	if want := []string{"dpkg", "gcc-14-base"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("dropped are %q, %v, want %q", got, err, want)
	}
}

// TestLoaded has libraries that a package loads when it runs, but for those it names itself.
func TestLoaded(t *testing.T) {
	for depends, want := range map[string]int{"libc6": 1, "libc6, liblzma5 (>= 5.1)": 1} {
		deb := buildDeb(t, "Package: libkmod2\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\nDepends: "+depends+"\n", "", "", []debFile{
			{path: "usr/lib/systemd/system/ldconfig.service", content: "x", mode: 0o644}, {path: "usr/lib/libkmod.so.2", content: "x", mode: 0o644},
		})
		spill, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer spill.Close()
		p, err := convert(context.Background(), deb, spill)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]int{}
		for _, d := range p.Requires {
			found[d.Name]++
		}
		if found["liblzma5"] != want || found["libzstd1"] != 1 {
			t.Errorf("%s: got %v", depends, found)
		}
		for _, f := range p.Files {
			if strings.HasSuffix(f.Path, "/"+leftOut) {
				t.Errorf("%s: has %s", depends, f.Path)
			}
		}
	}
}
