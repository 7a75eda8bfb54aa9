package vm

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// Where the program in the machine finds what it builds from.
const (
	LockPath  = "/caisson.lock"
	StorePath = "/store"
)

// job is what the machine does.
type job struct {
	// Args is the command line of this program, without its name.
	Args []string `json:"args"`
	Env  []string `json:"env"`
	// UID and GID are who runs it, and Umask, Persona (personality(2)) and Hostname
	// what it finds: those of the program that started the machine, so that what is
	// varied of them for a rebuild is varied for the build in the machine.
	UID      int    `json:"uid"`
	GID      int    `json:"gid"`
	Umask    int    `json:"umask"`
	Persona  uint   `json:"persona"`
	Hostname string `json:"hostname"`
	// Out is the folder for the results.
	Out string `json:"out"`
}

const (
	jobName  = "job.json"
	lockName = "caisson.lock"
	// storeName is the folder of the store's files, as package cas lays them out.
	storeName = "store"
	// endName is an empty file, the last: an archive that was cut off has none.
	endName = "end"
)

// maxSmall is the most bytes of job and lock that a machine reads into memory.
const maxSmall = 256 << 20

// writeInputs writes what a machine is given: a tar archive of job, lock and inputs,
// which are read from the store and proved. A kernel needs no file system for it, and
// in the machine they are files of a store that a build can link.
func writeInputs(ctx context.Context, w io.Writer, j *job, lockText []byte, store *cas.Store, inputs []*lock.Input) error {
	a := tar.NewWriter(w)
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		b    []byte
	}{{jobName, text}, {lockName, lockText}} {
		if err := a.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.b)), Mode: 0o444, Format: tar.FormatPAX}); err != nil {
			return err
		}
		if _, err := a.Write(f.b); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, in := range inputs {
		if err := ctx.Err(); err != nil {
			return err
		}
		hex := in.SHA256.Hex()
		if seen[hex] {
			continue
		}
		seen[hex] = true
		if err := copyInput(a, path.Join(storeName, "sha256", hex[:2], hex), store, in); err != nil {
			return err
		}
	}
	if err := a.WriteHeader(&tar.Header{Name: endName, Mode: 0o444, Format: tar.FormatPAX}); err != nil {
		return err
	}
	return a.Close()
}

func copyInput(a *tar.Writer, name string, store *cas.Store, in *lock.Input) error {
	f, err := open(store, in)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.WriteHeader(&tar.Header{Name: name, Size: f.Size(), Mode: 0o444, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(a, f)
	return named(err, in)
}

// readInputs is writeInputs backwards, in the machine: files below root, and the job.
func readInputs(r io.Reader, root string) (*job, error) {
	var j *job
	whole := false
	a := tar.NewReader(r)
	for {
		h, err := a.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if !fs.ValidPath(h.Name) || h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%q of type %q", h.Name, h.Typeflag)
		}
		if h.Name == jobName {
			b, err := io.ReadAll(io.LimitReader(a, maxSmall))
			if err != nil {
				return nil, err
			}
			j = &job{}
			if err := json.Unmarshal(b, j); err != nil {
				return nil, fmt.Errorf("%s: %w", jobName, err)
			}
			continue
		}
		if h.Name == endName {
			whole = true
			continue
		}
		name := filepath.Join(root, h.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := writeNew(name, a, 0o444); err != nil {
			return nil, err
		}
	}
	if j == nil || !whole {
		return nil, errors.New("the archive has been cut off")
	}
	return j, nil
}

// writeNew writes a file that is not there.
func writeNew(name string, r io.Reader, mode os.FileMode) error {
	w, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// conditions are the variables of an environment that are handed on: those that change
// how programs behave. What else is there, such as passwords, stays outside.
func conditions(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "HOME", "PATH", "LANG", "TZ", "SOURCE_DATE_EPOCH", "GOFLAGS", "RUSTFLAGS", "CC", "CAISSON_VARIED", "GOMAXPROCS", "GODEBUG":
		default:
			if !strings.HasPrefix(name, "LC_") {
				continue
			}
		}
		out = append(out, kv)
	}
	return out
}
