package main

import "regexp"

// defaultPackages are the packages of the demo; what they need comes with them. Of alternatives the first is taken that
// there is, and none where the last is empty.
var defaultPackages = []string{
	// root and initrd
	"base-files", "bash", "coreutils", "util-linux", "mount", "login", "passwd",
	"systemd", "systemd-sysv", "udev", "dbus", "kmod", "libpam-runtime", "libpam-modules",
	"cryptsetup-bin", "dmsetup", "linux-image-cloud-amd64", "grep", "sed",
	// of root and initrd too, where they are not in systemd's own package
	"systemd-cryptsetup|", "systemd-repart|",
	// scratch space
	"e2fsprogs",
	// see loaded
	"liblzma5", "libzstd1",
	// tools
	"systemd-boot-efi", "rpm", "mawk", "findutils", "gcc", "libc6-dev", "binutils",
	"cargo-web|cargo", "rustc-web|rustc", "zstd", "tar", "gzip", "diffutils",
	// the debug variant
	"strace",
}

// podvmPackages are what lockfiles/podvm/demo.yaml wants besides. It has a way to boot that older releases' systemd has not, so they
// are in the repositories of other releases.
var podvmPackages = []string{
	"iproute2", "iptables", "systemd-resolved", "tpm2-tools", "shim-signed", "less", kernelUKI,
}

// sourcePackages are read for the content of our own packages; base-passwd does not become an RPM.
var sourcePackages = []string{"base-passwd", "base-files"}

// droppedPackages are what only Debian's maintainer scripts and its package manager need. apt is told that they are installed, and
// no RPM requires them.
var droppedPackages = map[string]bool{
	"adduser":              true,
	"base-passwd":          true,
	"cdebconf":             true,
	"debconf":              true,
	"debconf-2.0":          true,
	"dpkg":                 true,
	"grub2-common":         true,
	"grub-efi-amd64-bin":   true,
	"init-system-helpers":  true,
	"initramfs-tools":      true,
	"linux-initramfs-tool": true,
	"libcap2-bin":          true,
	"libdebconfclient0":    true,
	"linux-base":           true,
	"mokutil":              true,
	"perl":                 true,
	"perl-base":            true,
	"sensible-utils":       true,
	"shim-signed-common":   true,
	"usrmerge":             true,
	"usr-is-merged":        true,
}

// loaded are the libraries that a package loads when it runs, without naming them as dependencies: of Debian's package manager
// all of them come, so each system has them. Without them kmod 34 takes compressed modules for empty ones.
var loaded = map[string][]string{"libkmod2": {"liblzma5", "libzstd1"}}

// compilerBase is the name of a package of a compiler's documentation, another one in each release.
var compilerBase = regexp.MustCompile(`^gcc-[0-9]+-base$`)

// isDropped says whether a package is one of those.
func isDropped(name string) bool { return droppedPackages[name] || compilerBase.MatchString(name) }
