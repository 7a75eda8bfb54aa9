package lockfiles

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
)

// TestOwn: Caisson's own programs and image are made of the same source by the same
// toolchain and flags, which README gives to whoever has Go alone, and come with the
// licence.
func TestOwn(t *testing.T) {
	names, err := filepath.Glob("caisson/*.yaml")
	if err != nil || len(names) != 3 {
		t.Fatalf("got %v, %v; want the definitions of the image and of two programs", names, err)
	}
	var toolchain, flags string
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := lock.ParseManifest(name, b)
		if err != nil {
			t.Error(err)
			continue
		}
		step := m.Steps[0].Go
		if toolchain == "" {
			toolchain, flags = m.Inputs.Go[0].Toolchain, step.LDFlags
		}
		if m.Inputs.Go[0].Toolchain != toolchain || step.LDFlags != flags || step.Package != "./cmd/caisson" {
			t.Errorf("%s: %s with %s and %s; want ./cmd/caisson with %s and %s", name, step.Package, m.Inputs.Go[0].Toolchain, step.LDFlags, toolchain, flags)
		}
		if strings.Contains(name, "arm64") != (step.Arch == "aarch64") {
			t.Errorf("%s: the program is for %q", name, step.Arch)
		}
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := "CGO_ENABLED=0 GOTOOLCHAIN=" + toolchain + " go build -trimpath -buildvcs=false -ldflags '" + flags + "' ./cmd/caisson"
	if !strings.Contains(string(readme), want) {
		t.Errorf("README.md does not say %q", want)
	}
	top, err := os.ReadFile("../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if own, err := os.ReadFile("caisson/license/LICENSE"); err != nil || !bytes.Equal(own, top) {
		t.Errorf("caisson/license/LICENSE is not LICENSE, %v", err)
	}
}
