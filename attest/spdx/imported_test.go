package spdx_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"caisson/attest/internal/fixture"
	"caisson/attest/spdx"
	"caisson/lock"
)

// TestImported looks for what the SBOM of an OCI image lists: in that image, and
// nowhere else, with the relations that hold.
func TestImported(t *testing.T) {
	doc := read(t, write(t, subject(t)))
	names, imported := map[string]string{}, 0
	for _, p := range doc.Packages {
		names[string(p.PackageSPDXIdentifier)] = p.PackageName
		if strings.HasPrefix(p.PackageSourceInfo, "listed by the SBOM "+fixture.Sum("pause sbom").String()) {
			imported++
		}
	}
	if imported != 3 {
		t.Errorf("%d packages are imported, want 3", imported)
	}
	var got []string
	for _, r := range doc.Relationships {
		if a, b := string(r.RefA.ElementRefID), string(r.RefB.ElementRefID); strings.HasPrefix(b, "Imported-") {
			got = append(got, fmt.Sprintf("%s %s %s", names[a], r.Relationship, names[b]))
		}
	}
	slices.Sort(got)
	want := []string{
		"pause DEPENDS_ON libc",
		"pause/x86_64/manifest CONTAINS libc", "pause/x86_64/manifest CONTAINS libc", "pause/x86_64/manifest CONTAINS pause",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestNotImported has an SBOM that cannot be read: it is there all the same.
func TestNotImported(t *testing.T) {
	s := subject(t)
	s.Facts = func(in *lock.Input) (spdx.Facts, error) {
		if in.OCI != nil {
			return spdx.Facts{NotImported: "it is written\nin verse"}, nil
		}
		return fixture.Facts(in)
	}
	for _, p := range read(t, write(t, s)).Packages {
		if p.PackageName == "pause/sbom" {
			if want := "What it lists is not here: it is written in verse."; !strings.HasSuffix(p.PackageComment, want) {
				t.Errorf("got %q, want %q at its end", p.PackageComment, want)
			}
			return
		}
	}
	t.Error("the SBOM itself is gone")
}
