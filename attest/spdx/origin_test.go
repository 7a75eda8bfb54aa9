package spdx_test

import (
	"strings"
	"testing"

	"github.com/spdx/tools-golang/spdx/v2/common"

	"caisson/attest/internal/fixture"
	"caisson/attest/spdx"
	"caisson/lock"
	"caisson/lock/rpmmd"
)

// TestOrigin has an os-release in bash, and the source package of glibc.
func TestOrigin(t *testing.T) {
	s := subject(t)
	s.System = spdx.System{Input: "rpm/bash-5.2-1.x86_64", ID: "example", VersionID: "9", CPE: "cpe:/o:example:example:9"}
	source := *s.Lock.Find(lock.KindRPM, "glibc-2.39-1.x86_64")
	r := *source.RPM
	r.Arch, source.Name, source.RPM, source.SHA256 = "src", "glibc-2.39-1.src", &r, fixture.Sum("source")
	source.PURL = "pkg:rpm/glibc@2.39-1?arch=src"
	source.For = []lock.Use{{Arch: "x86_64", Set: lock.SetSource, By: "glibc-2.39-1.x86_64"}}
	s.Lock.Inputs = append(s.Lock.Inputs, source)
	s.Lock.Find(lock.KindRPM, "glibc-2.39-1.x86_64").RPM.SourceRPM = "glibc-2.39-1.src.rpm"

	doc := read(t, write(t, s))
	refs := map[string]string{}
	ids := map[string]common.ElementID{}
	for _, p := range doc.Packages {
		for _, x := range p.PackageExternalReferences {
			refs[p.PackageFileName] += x.RefType + " " + x.Locator + "\n"
		}
		ids[p.PackageFileName] = p.PackageSPDXIdentifier
	}
	for file, want := range map[string][]string{
		"bash-5.2-1.x86_64.rpm": {"cpe22Type cpe:/o:example:example:9", "distro=example-9", "download_url=https://mirror.example/base/x86_64/os/"},
		"rpm-4.18-1.x86_64.rpm": {"download_url="},
		"pause.tar":             {"download_url=https://files.example/pause.tar"},
	} {
		for _, w := range want {
			if !strings.Contains(strings.ReplaceAll(refs[file], "%2F", "/"), w) {
				t.Errorf("%s: got %s, want %s in it", file, refs[file], w)
			}
		}
	}
	if strings.Contains(refs["rpm-4.18-1.x86_64.rpm"], "distro=") {
		t.Errorf("a tool is of the image's distribution: %s", refs["rpm-4.18-1.x86_64.rpm"])
	}
	found := 0
	for _, r := range doc.Relationships {
		if r.Relationship == "GENERATED_FROM" && r.RefA.ElementRefID == ids["glibc-2.39-1.x86_64.rpm"] {
			found++
		}
	}
	if found != 1 {
		t.Errorf("glibc is generated from %d packages, want its source", found)
	}
	for _, r := range doc.Relationships {
		if strings.Contains(string(r.RefB.ElementRefID), "glibc-2.39-1.src") && r.Relationship != "GENERATED_FROM" {
			t.Errorf("the source package: %s", r.Relationship)
		}
	}
}

// TestVersions asks for a version of what two packages provide.
func TestVersions(t *testing.T) {
	evr := func(text string) rpmmd.EVR {
		e, err := rpmmd.ParseEVR(text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for want, edge := range map[spdx.Dependency]bool{
		{Name: "cap"}: true,
		{Name: "cap", Flags: rpmmd.Equal, EVR: evr("2")}:                   true,
		{Name: "cap", Flags: rpmmd.Equal, EVR: evr("2-8")}:                 false,
		{Name: "cap", Flags: rpmmd.Greater | rpmmd.Equal, EVR: evr("1:0")}: false,
		{Name: "cap", Flags: rpmmd.Greater | rpmmd.Equal, EVR: evr("2-7")}: true,
		{Name: "cap", Flags: rpmmd.Less, EVR: evr("2-7")}:                  false,
		{Name: "cap", Flags: rpmmd.Less | rpmmd.Greater, EVR: evr("3")}:    true,
		{Name: "other"}: false,
	} {
		s := subject(t)
		s.Facts = func(in *lock.Input) (spdx.Facts, error) {
			switch {
			case in.RPM == nil:
			case in.RPM.Name == "bash":
				return spdx.Facts{Requires: []spdx.Dependency{want}}, nil
			case in.RPM.Name == "glibc":
				return spdx.Facts{Provides: []spdx.Dependency{{Name: "cap", Flags: rpmmd.Equal, EVR: evr("2-7")}}}, nil
			}
			return spdx.Facts{}, nil
		}
		// What the lock has as reasons would be an edge too.
		for i := range s.Lock.Inputs {
			for j := range s.Lock.Inputs[i].For {
				s.Lock.Inputs[i].For[j].Dep = ""
			}
		}
		got := false
		for _, r := range read(t, write(t, s)).Relationships {
			got = got || r.Relationship == common.TypeRelationshipDependsOn && strings.Contains(string(r.RefA.ElementRefID), "bash")
		}
		if got != edge {
			t.Errorf("%s: got %t, want %t", want, got, edge)
		}
	}
}
