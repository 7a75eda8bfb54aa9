package gomod

import (
	"context"
	"fmt"
	"go/version"
	"io/fs"
	"regexp"
)

// toolchainName is a released toolchain: "go1.26.0", "go1.26rc1".
var toolchainName = regexp.MustCompile(`^go1\.[1-9][0-9]*(\.[0-9]+|(rc|beta)[1-9][0-9]*)$`)

// ToolchainModule is the module that holds a Go toolchain: for go1.26.0 on
// linux and amd64, golang.org/toolchain v0.0.1-go1.26.0.linux-amd64.
func ToolchainModule(version, goos, goarch string) (path, ver string) {
	return "golang.org/toolchain", "v0.0.1-" + version + "." + goos + "-" + goarch
}

// CheckToolchain is an error unless name is a toolchain that can be locked
// and is new enough for the source folder's go line.
func CheckToolchain(fsys fs.FS, name string) error {
	if err := checkToolchainName(name); err != nil {
		return err
	}
	want, err := GoVersion(fsys)
	if err != nil {
		return err
	}
	if version.Compare(name, "go"+want) < 0 {
		return fmt.Errorf("toolchain %s is older than the go %s that the source asks for", name, want)
	}
	return nil
}

// checkToolchainName refuses what no module proxy has: since Go 1.21 the
// first release of a language version is written with ".0".
func checkToolchainName(name string) error {
	if !toolchainName.MatchString(name) || version.Compare(name, "go1.21") < 0 {
		return fmt.Errorf("toolchain %q: want a full version of go1.21.0 or later, such as \"go1.26.0\"", name)
	}
	return nil
}

// ToolchainSum looks up a toolchain's h1 in a Go checksum database: see SumDB.
func ToolchainSum(ctx context.Context, read func(ctx context.Context, path string) ([]byte, error),
	version, goos, goarch, sumdbKey string) (string, error) {
	if err := checkToolchainName(version); err != nil {
		return "", err
	}
	path, ver := ToolchainModule(version, goos, goarch)
	return SumDB(ctx, read, sumdbKey)(path, ver)
}
