// Package gobuild prepares an offline, reproducible build of a Go program:
// it lays out the locked modules as a module proxy of files, unpacks the
// locked toolchain, says what to run, and reads from the program which modules
// it was made of.
//
// It runs nothing itself. A Job's paths are those that the command will see.
// The program's bytes depend on the toolchain, the source, the modules, the
// package, the linker flags and the architecture; with cgo also on the C
// compiler. They do not depend on where any of it lies, on the number of
// CPUs, or on the state of a cache, which must be empty or absent all the same:
// the go command believes what it finds there.
package gobuild

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"caisson/lock/gomod"

	"golang.org/x/mod/module"
)

// Kinds of File.
const (
	KindZip = "zip" // the module's files
	KindMod = "mod" // its go.mod
)

// File is one file of a module proxy.
type File struct {
	Module, Version string
	Kind            string // KindZip or KindMod
	// Path is where the file will lie when the proxy is read.
	Path string
	H1   string // as in go.sum
}

// Proxy lays out files below dir as a GOPROXY=file:// tree of symbolic links.
// There are no .info files and no version lists: a build of locked versions
// asks for none. dir is made even if there are no files.
func Proxy(dir string, files []File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := module.Check(f.Module, f.Version); err != nil {
			return fmt.Errorf("laying out a module proxy: %w", err)
		}
		var name string
		m := gomod.Module{Path: f.Module, Version: f.Version}
		switch f.Kind {
		case KindZip:
			name = gomod.ZipPath(m)
		case KindMod:
			name = gomod.ModPath(m)
		default:
			return fmt.Errorf("laying out a module proxy: %s %s: kind %q, want %q or %q", f.Module, f.Version, f.Kind, KindZip, KindMod)
		}
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(f.Path, name); err != nil {
			return fmt.Errorf("laying out a module proxy: %w", err)
		}
	}
	return nil
}

// Job is one program to build. Paths are absolute, as the command sees them;
// only Out and Tmp need to be writable.
type Job struct {
	Toolchain string // an unpacked Go toolchain
	Proxy     string // what Proxy laid out
	Source    string // the module's or workspace's folder
	Out       string // the program to write
	Tmp       string // a folder for caches, empty before the build; "/tmp" if not set

	Package string // relative to Source: ".", "./cmd/agent"
	LDFlags string // as in go build -ldflags
	Arch    string // GOARCH; empty: the toolchain's own
	Epoch   int64  // SOURCE_DATE_EPOCH for a C compiler, seconds since 1970
	Cgo     bool   // allow cgo; its compiler is found in /usr/bin
	// Workspace tells whether Source has a go.work: see gomod.Workspace. One in
	// a folder above is passed over.
	Workspace bool
}

// Args is the command: its path and its arguments.
func (j Job) Args() []string {
	args := []string{path.Join(j.Toolchain, "bin/go"), "build", "-C", j.Source, "-o", j.Out}
	if j.LDFlags != "" {
		args = append(args, "-ldflags="+j.LDFlags)
	}
	return append(args, "--", j.Package)
}

// Env is the command's whole environment.
func (j Job) Env() []string {
	tmp := j.Tmp
	if tmp == "" {
		tmp = "/tmp"
	}
	env := []string{
		"PATH=" + path.Join(j.Toolchain, "bin") + ":/usr/bin:/bin",
		"HOME=" + path.Join(tmp, "home"),
		"TMPDIR=" + tmp,
		"LC_ALL=C",
		"TZ=UTC",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(j.Epoch, 10),
		"GOENV=off",
		"GOTOOLCHAIN=local",
		"GOROOT=" + j.Toolchain,
		"GOPATH=" + path.Join(tmp, "gopath"),
		"GOCACHE=" + path.Join(tmp, "gocache"),
		"GOMODCACHE=" + path.Join(tmp, "gomodcache"),
		// A vendor folder would not be checked against go.sum.
		"GOFLAGS=-trimpath -mod=readonly -buildvcs=false -modcacherw",
		// One file URL and nothing else: the go command then needs no
		// checksum database, and has no other place to look.
		"GOPROXY=" + (&url.URL{Scheme: "file", Path: j.Proxy}).String(),
		"GOSUMDB=off",
		"GOVCS=*:off",
		"GOOS=linux",
		// The oldest machine of each architecture, as go has it by default.
		"GOAMD64=v1",
		"GOARM64=v8.0",
	}
	if j.Arch != "" {
		env = append(env, "GOARCH="+j.Arch)
	}
	if !j.Workspace {
		env = append(env, "GOWORK=off")
	}
	if j.Cgo {
		return append(env, "CGO_ENABLED=1", "CC=gcc", "CXX=g++")
	}
	return append(env, "CGO_ENABLED=0")
}
