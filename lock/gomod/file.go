package gomod

import (
	"bytes"
	"fmt"
	"io"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
)

// ZipPath is where a module proxy has the module's files, relative to the
// proxy's address: "github.com/google/uuid/@v/v1.6.0.zip". Capitals are
// escaped as in golang.org/x/mod/module. It is empty for a path or version
// that no proxy can have, and Read gives none of those.
func ZipPath(m Module) string { return proxyPath(m, ".zip") }

// ModPath is where a module proxy has the module's go.mod, as ZipPath is.
func ModPath(m Module) string { return proxyPath(m, ".mod") }

func proxyPath(m Module, ext string) string {
	p, err := module.EscapePath(m.Path)
	if err != nil {
		return ""
	}
	v, err := module.EscapeVersion(m.Version)
	if err != nil {
		return ""
	}
	return p + "/@v/" + v + ext
}

// ZipHash is the h1 of the files in a module's zip.
func ZipHash(path string) (string, error) {
	h1, err := dirhash.HashZip(path, dirhash.Hash1)
	if err != nil {
		return "", fmt.Errorf("hashing %s: %w", path, err)
	}
	return h1, nil
}

// ModHash is the h1 of a go.mod with that content.
func ModHash(b []byte) (string, error) {
	return dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	})
}

// CheckZip is an error unless the zip's files have that h1.
func CheckZip(path, h1 string) error {
	got, err := ZipHash(path)
	if err != nil {
		return err
	}
	if got != h1 {
		return fmt.Errorf("%s: got %s, want %s", path, got, h1)
	}
	return nil
}

// CheckMod is an error unless the content of a go.mod has that h1.
func CheckMod(b []byte, h1 string) error {
	got, err := ModHash(b)
	if err != nil {
		return err
	}
	if got != h1 {
		return fmt.Errorf("go.mod: got %s, want %s", got, h1)
	}
	return nil
}
