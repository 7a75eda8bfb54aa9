package build

import (
	"fmt"
	"os"
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
