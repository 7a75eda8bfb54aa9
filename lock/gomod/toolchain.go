package gomod

import (
	"context"
	"errors"
	"fmt"
	"go/version"
	"io/fs"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb"
)

// SumDBKey is the verifier key of the Go checksum database, sum.golang.org,
// as the go command has it built in.
const SumDBKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

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

// ToolchainSum looks up a toolchain's h1 in a Go checksum database. It
// verifies the signature of the database's tree with sumdbKey (see SumDBKey)
// and that the record is included in that tree. read fetches a path of the
// database, such as "/lookup/golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64"
// or "/tile/8/0/123"; it is called by several goroutines.
func ToolchainSum(ctx context.Context, read func(ctx context.Context, path string) ([]byte, error),
	version, goos, goarch, sumdbKey string) (string, error) {
	if err := checkToolchainName(version); err != nil {
		return "", err
	}
	ops := &sumOps{key: sumdbKey, read: func(path string) ([]byte, error) { return read(ctx, path) }}
	path, ver := ToolchainModule(version, goos, goarch)
	lines, err := sumdb.NewClient(ops).Lookup(path, ver)
	if err != nil {
		// The client flattens errors to text; the cause is better.
		if cause := ops.failure(); cause != nil {
			err = cause
		}
		return "", fmt.Errorf("looking up %s@%s in the checksum database: %w", path, ver, err)
	}
	prefix := path + " " + ver + " "
	for _, line := range lines {
		if h1, ok := strings.CutPrefix(line, prefix); ok {
			return h1, checkH1(h1)
		}
	}
	return "", fmt.Errorf("looking up %s@%s in the checksum database: the record has no h1", path, ver)
}

// sumOps is a checksum database client's outside world, for one lookup: what
// it learns is kept in memory only, so each lookup starts with an empty tree.
type sumOps struct {
	key  string
	read func(path string) ([]byte, error)

	mu     sync.Mutex
	latest []byte
	err    error // the first failed read, or the security error
}

func (o *sumOps) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *sumOps) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
}

// ReadRemote fetches a path of the database.
func (o *sumOps) ReadRemote(path string) ([]byte, error) {
	b, err := o.read(path)
	if err != nil {
		o.fail(fmt.Errorf("reading %s: %w", path, err))
	}
	return b, err
}

// ReadConfig returns the key and the latest tree.
func (o *sumOps) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(o.key), nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.latest, nil
}

// WriteConfig moves the latest tree on.
func (o *sumOps) WriteConfig(_ string, old, latest []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if string(o.latest) != string(old) {
		return sumdb.ErrWriteConflict
	}
	o.latest = latest
	return nil
}

// ReadCache finds nothing: the client keeps what it has read.
func (o *sumOps) ReadCache(string) ([]byte, error) { return nil, fs.ErrNotExist }

// WriteCache keeps nothing.
func (o *sumOps) WriteCache(string, []byte) {}

// Log is silent: what matters comes back as an error.
func (o *sumOps) Log(string) {}

// SecurityError notes that the database contradicts itself.
func (o *sumOps) SecurityError(msg string) { o.fail(errors.New(msg)) }
