package build

import (
	"strings"

	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
)

// Image is what a build made: the part of image.json that the build itself
// answers for. Measurements are added from the bytes, by verify/measure.
type Image struct {
	Name    string `json:"name"`
	Variant string `json:"variant,omitempty"`
	Arch    string `json:"arch"`
	// Lock is the digest of the lock the image was made from, and Epoch its
	// time in seconds since 1970.
	Lock  digest.Digest `json:"lock"`
	Epoch int64         `json:"epoch"`
	// Kernel is the version of the kernel, Cmdline the whole command line in
	// the UKI.
	Kernel  string `json:"kernel,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
	// RootHash is the dm-verity root hash, 64 hex digits.
	RootHash string `json:"rootHash,omitempty"`
	// Manifest is the digest of an OCI image's manifest, by which registries
	// know it. An archive has nothing of what a disk has.
	Manifest *digest.Digest `json:"manifest,omitempty"`
	// Files are the files of the output folder, the image first.
	Files      []Output    `json:"files"`
	Partitions []Partition `json:"partitions,omitempty"`
	// Signed are the EFI programs that are signed for Secure Boot.
	Signed []SignedProgram `json:"signed,omitempty"`
	// Totals counts the files of root, initrd and ESP by account.
	Totals map[Account]Total `json:"totals"`
	// Removed counts the files that the lock's settings took out of the root;
	// build.log names them.
	Removed *Total `json:"removed,omitempty"`
	// SkippedScriptlets counts, by set, the scriptlets and triggers that were
	// not run because the lock says so; evidence.json lists them.
	SkippedScriptlets map[string]int `json:"skippedScriptlets,omitempty"`
}

// IsArchive tells an archive from a disk, by the name of its file.
func (i *Image) IsArchive() bool {
	return len(i.Files) > 0 && strings.HasSuffix(i.Files[0].Name, "."+lock.OutputTar)
}

// Output is a file of the output folder.
type Output struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"` // bytes
	SHA256 digest.Digest `json:"sha256"`
}

// Partition is a partition of the disk.
type Partition struct {
	Name   string        `json:"name"`
	Type   string        `json:"type"`  // GUID
	ID     string        `json:"id"`    // GUID
	Start  int64         `json:"start"` // bytes
	Size   int64         `json:"size"`  // bytes
	SHA256 digest.Digest `json:"sha256"`
}

// Account says how a file came to be as it is.
type Account string

// The accounts. Every file of the image has exactly one.
const (
	Vendor    Account = "vendor"    // content as the package's signed header has it
	Changed   Account = "changed"   // packaged, then altered
	Compiled  Account = "compiled"  // made by a step from locked sources
	Placed    Account = "placed"    // from an overlay or a file input
	Generated Account = "generated" // made by scriptlets, or by normalisation
)

// Total is a number of files and of their bytes.
type Total struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// File is a line of files.json: one file of root, initrd or ESP and what it
// is there for.
type File struct {
	Part string `json:"part"` // root, initrd or esp
	Path string `json:"path"` // absolute within its part
	// Mode is the type and permissions as stat has them (S_IF*, setuid).
	Mode   uint32 `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   int64  `json:"size"`
	Target string `json:"target,omitempty"` // of a symbolic link
	// SHA256 and SHA1 (which SPDX 2.3 demands, section 8.4) of a regular
	// file's content.
	SHA256  *digest.Digest `json:"sha256,omitempty"`
	SHA1    string         `json:"sha1,omitempty"`
	Account Account        `json:"account"`
	// Inputs names what it is made of, as KIND/NAME of the lock's inputs:
	// its package; for a compiled file the source and the modules that are in it,
	// or all crates.
	Inputs []string `json:"inputs,omitempty"`
	// By says what made or changed it, or brought it there: "scriptlets" (and
	// triggers; "post of NAME-VERSION-RELEASE.ARCH", or "scriptlets of" it, where it is
	// known which), "rpm" (its database), "installation" (folders that no package
	// names), "step 1", "overlay", "services", "settings" (what the lock has Caisson write),
	// "kernel modules", "depmod", "normalise", "assembly".
	By string `json:"by,omitempty"`
	// SetBy is the scriptlet that gave it its owner, an attribute such as its
	// capabilities, or its device's number, where one did, likewise.
	SetBy string `json:"setBy,omitempty"`
}

// Evidence is evidence.json: what the sandbox recorded, step by step.
type Evidence struct {
	Version int           `json:"version"`
	Lock    digest.Digest `json:"lock"`
	// Inputs are the Merkle roots over the names and the bytes of all inputs
	// that the image's steps were given: read before the first step and again
	// after the last.
	Inputs sandbox.Inputs     `json:"inputs"`
	Steps  []sandbox.Evidence `json:"steps"`
	// Unused are inputs, as KIND/NAME, that the lock has for this image and
	// that no step was given.
	Unused []string `json:"unused,omitempty"`
	// Unread are inputs, as KIND/NAME, that steps were given and that nobody
	// opened while they ran, as far as inotify(7) tells; nil where the kernel gave
	// the builder no watches. The tools are not looked at, and what others open in
	// the store at the same time counts as read: it is a hint, and nothing rests on it.
	Unread *[]string `json:"unread,omitempty"`
	// Reused are the steps that did not run: what they made and what was recorded of
	// them then is of an earlier build of the same program, with the same tools and
	// inputs.
	Reused []string `json:"reused,omitempty"`
	// Skipped are the scriptlets and triggers that were not run because the
	// lock says so of their set, in the order of sets and packages.
	Skipped []SkippedScript `json:"skippedScriptlets,omitempty"`
	// NotRecorded says in words which attempts to get out fail without being listed.
	NotRecorded []string `json:"notRecorded"`
	// VM is the virtual machine that the image was built in; nil where it was none.
	VM *VM `json:"vm,omitempty"`
}

// VM is a virtual machine that an image was built in: what it is made of.
type VM struct {
	// QEMU is what it says of itself, Machine and CPU what it emulates, and
	// Accelerator how: "kvm", or "tcg", which is in software.
	QEMU        string `json:"qemu"`
	Machine     string `json:"machine"`
	CPU         string `json:"cpu"`
	Accelerator string `json:"accelerator"`
	CPUs        int    `json:"cpus"`
	Memory      int64  `json:"memory"` // bytes
	// NetworkCards is how many it has.
	NetworkCards int      `json:"networkCards"`
	Kernel       VMKernel `json:"kernel"`
	// Initramfs is the digest of its first root: this program, and modules of the
	// kernel.
	Initramfs digest.Digest `json:"initramfs"`
}

// VMKernel is the kernel of a virtual machine: a file of a package of the lock.
type VMKernel struct {
	Set     string        `json:"set"`
	Package string        `json:"package"`
	SHA256  digest.Digest `json:"sha256"` // of the package
	Version string        `json:"version"`
}

// SkippedScript is a scriptlet or trigger that was not run.
type SkippedScript struct {
	Set     string `json:"set"`
	Package string `json:"package"` // NEVRA
	// Kind is "pretrans", "pre", "post", "posttrans", "triggerprein",
	// "triggerin", "filetriggerin" or "transfiletriggerin".
	Kind    string `json:"kind"`
	Program string `json:"program"`
	// On is what would have set a trigger off: names of packages, or the
	// beginnings of paths.
	On []string `json:"on,omitempty"`
}
