package build

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"caisson/build/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	if os.Getenv(assembleIn) != "" {
		if err := assembleChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(buildIn) != "" {
		if err := buildChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// tool finds a program of the machine, or skips the test.
func tool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("%s is required: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	return p
}
