package cargobuild

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"strconv"
	"strings"

	"caisson/lock/cargo"
	"caisson/prefetch/view"
)

// Job is one program to build. Paths are absolute, as the command sees them;
// only Tmp needs to be writable, and programs in it are run. The command has to be run in Source, where
// cargo finds the configuration that belongs to the source.
type Job struct {
	Cargo  string // the program, beside its rustc; "/usr/bin/cargo" if not set
	Config string // a file with what Config returns
	// Git is the folder that Repositories laid out; empty where the lock names
	// no git repository.
	Git    string
	Source string // the folder with Cargo.toml and Cargo.lock
	Tmp    string // a folder for caches and output, empty before the build; "/tmp" if not set

	// Linker is the C compiler that links and that build scripts call, where
	// it is not called "cc".
	Linker string

	Bin      string // which program of the package or workspace
	Features []string
	Epoch    int64 // SOURCE_DATE_EPOCH, seconds since 1970
}

// Config is a cargo configuration that replaces crates.io and the crates'
// other registries by what LocalRegistry laid out below registries, and git
// repositories by those of job.Git, and that keeps paths out of the program. It is given with --config, and so wins over
// the source's own, whose rustflags stay in force.
func Config(registries string, job Job, lock *cargo.Lock) []byte {
	var sources []string
	for _, c := range lock.Crates {
		sources = append(sources, c.Source)
	}
	b := bytes.NewBuffer(view.CargoSources(registries, sources))
	b.Write(view.CargoGitSources(job.Git, lock.Git))
	// rustc takes the last one that matches: Source may be below Tmp.
	remap := []string{
		"--remap-path-prefix=" + job.target() + "=/target",
		"--remap-path-prefix=" + path.Join(job.home(), "registry/src") + "=/crates",
		"--remap-path-prefix=" + path.Join(job.home(), "git/checkouts") + "=/repositories",
		"--remap-path-prefix=" + job.Source + "=/source",
	}
	for i := range remap {
		remap[i] = view.TOMLString(remap[i])
	}
	fmt.Fprintf(b, "[build]\nincremental = false\nrustflags = [%s]\n\n", strings.Join(remap, ", "))
	// Cargo takes nothing from a git repository, not even one on its own disk,
	// where it is to be offline.
	fmt.Fprintf(b, "[net]\noffline = %t\ngit-fetch-with-cli = false\nretry = 0\n", job.Git == "")
	return b.Bytes()
}

// Args is the command: its path and its arguments.
func (j Job) Args() []string {
	args := []string{
		j.cargo(), "build",
		"--config", j.Config,
		"--manifest-path", path.Join(j.Source, "Cargo.toml"),
		"--target-dir", j.target(),
		"--release", "--locked",
	}
	if j.Git == "" {
		args = append(args, "--offline")
	}
	args = append(args, "--bin", j.Bin)
	if len(j.Features) > 0 {
		args = append(args, "--features", strings.Join(j.Features, ","))
	}
	return args
}

// Program is where the command leaves the program.
func (j Job) Program() string { return path.Join(j.target(), "release", j.Bin) }

// Env is the command's whole environment. Release builds have a fixed number
// of codegen units, whatever the number of CPUs, unless the source's profile
// gives another.
func (j Job) Env() []string {
	env := []string{
		"PATH=" + path.Dir(j.cargo()) + ":/usr/bin:/bin",
		"HOME=" + path.Join(j.tmp(), "home"),
		"TMPDIR=" + j.tmp(),
		"LC_ALL=C",
		"TZ=UTC",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(j.Epoch, 10),
		"CARGO_HOME=" + j.home(),
		"CARGO_INCREMENTAL=0",
		"CARGO_TERM_COLOR=never",
	}
	if j.Git == "" {
		env = append(env, "CARGO_NET_OFFLINE=true")
	} else {
		env = append(env, "XDG_CONFIG_HOME="+j.Git) // for git/config
	}
	if j.Linker != "" {
		env = append(env, "CC="+j.Linker)
		for _, target := range []string{"X86_64", "AARCH64"} {
			env = append(env, "CARGO_TARGET_"+target+"_UNKNOWN_LINUX_GNU_LINKER="+j.Linker)
		}
	}
	return env
}

func (j Job) cargo() string  { return cmp.Or(j.Cargo, "/usr/bin/cargo") }
func (j Job) tmp() string    { return cmp.Or(j.Tmp, "/tmp") }
func (j Job) home() string   { return path.Join(j.tmp(), "cargo-home") }
func (j Job) target() string { return path.Join(j.tmp(), "cargo-target") }
