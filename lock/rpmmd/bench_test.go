package rpmmd

import (
	"os"
	"path/filepath"
	"testing"
)

// data is the folder of shared test data.
const data = "../../../shared/data"

// open returns the one file that matches, or skips the test where the shared
// data is absent.
func open(t testing.TB, pattern string) *os.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(data, pattern))
	if err != nil || len(names) != 1 {
		t.Skipf("no shared data %s", pattern)
	}
	f, err := os.Open(names[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func BenchmarkLoadC9S(b *testing.B) {
	b.ReportAllocs()
	const plain = 51840420 + 8471009 // bytes of the two files, decompressed
	b.SetBytes(plain)
	for b.Loop() {
		n := 0
		for _, repo := range []string{"baseos", "appstream"} {
			pkgs, err := ParsePrimary(open(b, "rpm-md/c9s-"+repo+"/repodata/*-primary.xml.gz"))
			if err != nil {
				b.Fatal(err)
			}
			n += len(pkgs)
		}
		if n != 18774 {
			b.Fatalf("%d packages, want 18774", n)
		}
	}
}
