// Package rpmwrite writes binary RPM packages, format version 4, as rpm 4.12 and later read them.
//
// Limits: one file holds less than 4 GiB and all files together less than 2 GiB; no devices, sockets or FIFOs; the payload is a
// "newc" cpio archive compressed by zstd. There are no languages but C. The same Package gives the same bytes, and
// the same signatures where the signer is deterministic.
//
// What is written, in order (rpm's docs/manual/format.md): the lead, the signature header with SHA-1 and
// SHA-256 of the header, sizes, and OpenPGP signatures of the header and of header and payload; the header; the payload. Files are
// sorted by path. The members of a hard link set have one inode number and follow each other in the payload, where the last of them carries the content, as rpmbuild does it.
package rpmwrite

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// Package is what goes into the header and the payload of one RPM.
type Package struct {
	Name    string
	Epoch   uint32 // 0 is written as no epoch
	Version string
	Release string
	Arch    string // x86_64, noarch

	Summary, Description, License, Group string
	Vendor, URL                          string // left out where empty
	SourceRPM                            string // NAME-VERSION-RELEASE.src.rpm
	BuildHost                            string
	BuildTime                            time.Time // also the time of the signatures

	Provides, Requires, Conflicts, Obsoletes []Dep
	Recommends, Suggests, Enhances           []Dep

	Files    []File
	Scripts  []Script
	Triggers []Trigger // transaction file triggers
}

// Sense is a combination of rpm's dependency flags (RPMSENSE_*, include/rpm/rpmds.h).
type Sense uint32

// The flags that this package knows; the comparisons combine.
const (
	Less      Sense = 1 << 1
	Greater   Sense = 1 << 2
	Equal     Sense = 1 << 3
	interp    Sense = 1 << 8
	Pre       Sense = 1 << 9 // the dependency is needed by %pre, and so before the files are unpacked
	post      Sense = 1 << 10
	triggerIn Sense = 1 << 16
	rpmlib    Sense = 1 << 24
)

// Dep is one dependency. A rich dependency is its text, in parentheses, as the name.
type Dep struct {
	Name  string
	Sense Sense
	EVR   string // epoch:version-release; empty where any version will do
}

func (d Dep) rich() bool { return strings.HasPrefix(d.Name, "(") }

// FileFlags are rpm's file attributes (RPMFILE_*, include/rpm/rpmfiles.h).
type FileFlags uint32

// The attributes that this package knows.
const (
	Config    FileFlags = 1 << 0
	Doc       FileFlags = 1 << 1
	NoReplace FileFlags = 1 << 4
	Ghost     FileFlags = 1 << 6
	License   FileFlags = 1 << 7
)

// The file types of st_mode.
const (
	TypeMask    = 0o170000
	TypeDir     = 0o040000
	TypeRegular = 0o100000
	TypeLink    = 0o120000
)

// File is one packaged path.
type File struct {
	Path         string // absolute, clean
	Mode         uint32 // st_mode with its type
	Owner, Group string
	MTime        time.Time
	Flags        FileFlags
	Target       string // of a symbolic link
	Caps         string // capabilities as cap_to_text(3) writes them
	Mutable      bool   // rpm -V does not compare the content

	// Size and Open are the content of a regular file. Open is called once, and not at all for a ghost.
	Size int64
	Open func() (io.Reader, error)
	// HardLink, where it is not empty, names the set of paths that are the same file.
	// All of a set must have the same content and attributes.
	HardLink string
}

// Script is a scriptlet. Its interpreter becomes a dependency.
type Script struct {
	Kind ScriptKind
	Prog string // /bin/sh, or <lua>
	Body string
}

// ScriptKind says when a scriptlet runs.
type ScriptKind int

// The scriptlets that this package writes.
const (
	PreIn ScriptKind = iota
	PostIn
	PostTrans
)

// Trigger is a %transfiletriggerin: its script runs once, at the end of a transaction that installed files below one of
// the paths, or the package itself. Higher priorities run first; rpm's default is 1000000.
type Trigger struct {
	Paths    []string
	Priority uint32
	Prog     string
	Body     string
}

// Sign makes a binary OpenPGP signature, RSA, of a message at a time.
type Sign func(message io.Reader, at time.Time) ([]byte, error)

// Spool is where the payload lies until its size and digest, which come before it, are known. A temporary file is one.
type Spool interface {
	io.Reader
	io.Writer
	io.Seeker
}

// Write writes p to w. The spool must be empty and is used as scratch. Without sign the package is not signed.
func Write(w io.Writer, p *Package, spool Spool, sign Sign) error {
	files := append([]File(nil), p.Files...)
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	if err := check(p, files); err != nil {
		return err
	}
	pay, err := writePayload(spool, files)
	if err != nil {
		return err
	}
	head, err := packageHeader(p, files, pay)
	if err != nil {
		return err
	}
	sig, err := signatureHeader(p, head, pay, spool, sign)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{lead(p), sig, head} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(w, spool)
	return err
}

func check(p *Package, files []File) error {
	for _, v := range []struct{ what, text, forbidden string }{
		{"name", p.Name, " \t\n/<>=()"},
		{"version", p.Version, " \t\n/-:"},
		{"release", p.Release, " \t\n/-:"},
		{"arch", p.Arch, " \t\n/-:"},
	} {
		if v.text == "" || strings.ContainsAny(v.text, v.forbidden) {
			return fmt.Errorf("package %q: rpm does not allow the %s %q", p.Name, v.what, v.text)
		}
	}
	var total int64
	for i, f := range files {
		if !strings.HasPrefix(f.Path, "/") || strings.Contains(f.Path, "//") || len(f.Path) < 2 {
			return fmt.Errorf("package %q: %q is not a clean absolute path", p.Name, f.Path)
		}
		if i > 0 && files[i-1].Path == f.Path {
			return fmt.Errorf("package %q: %q is packaged twice", p.Name, f.Path)
		}
		switch f.Mode & TypeMask {
		case TypeDir, TypeLink:
		case TypeRegular:
			total += f.Size
		default:
			return fmt.Errorf("package %q: %q has mode %#o: neither file, directory nor symbolic link", p.Name, f.Path, f.Mode)
		}
	}
	if total >= 1<<31 {
		return fmt.Errorf("package %q: %d bytes of files, more than this writer's 2 GiB", p.Name, total)
	}
	return nil
}

// EVR is the version of the package as dependencies write it.
func (p *Package) EVR() string {
	evr := p.Version + "-" + p.Release
	if p.Epoch > 0 {
		evr = fmt.Sprintf("%d:%s", p.Epoch, evr)
	}
	return evr
}

// FileName is NAME-VERSION-RELEASE.ARCH.rpm.
func (p *Package) FileName() string {
	return fmt.Sprintf("%s-%s-%s.%s.rpm", p.Name, p.Version, p.Release, p.Arch)
}
