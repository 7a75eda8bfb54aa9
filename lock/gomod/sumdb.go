package gomod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb"
)

// SumDBKey is the verifier key of the Go checksum database, sum.golang.org,
// as the go command has it built in.
const SumDBKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

// SumDB makes a function that looks up the h1 of a module's zip, or of its
// go.mod where version ends in "/go.mod", in a Go checksum database. It
// verifies the signature of the database's tree with key (see SumDBKey), and
// that the record is included in that tree. read fetches a path of the
// database, such as "/lookup/golang.org/x/mod@v0.42.0" or "/tile/8/0/123". Both
// may be called by several goroutines, and the function for as long as ctx is.
func SumDB(ctx context.Context, read func(ctx context.Context, path string) ([]byte, error), key string) func(path, version string) (string, error) {
	ops := &sumOps{key: key, read: func(path string) ([]byte, error) { return read(ctx, path) }}
	client := sumdb.NewClient(ops)
	return func(path, version string) (string, error) {
		lines, err := client.Lookup(path, version)
		if err != nil {
			// The client flattens errors to text; the cause is better.
			if cause := ops.failure(); cause != nil {
				err = cause
			}
			return "", fmt.Errorf("looking up %s@%s in the checksum database: %w", path, version, err)
		}
		prefix := path + " " + version + " "
		for _, line := range lines {
			if h1, ok := strings.CutPrefix(line, prefix); ok {
				return h1, checkH1(h1)
			}
		}
		return "", fmt.Errorf("looking up %s@%s in the checksum database: the record has no h1", path, version)
	}
}

// sumOps is a checksum database client's outside world: what it
// learns is kept in memory only, so each client starts with an empty tree.
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
