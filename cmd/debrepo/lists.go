package main

// defaultPackages are the packages of the demo; what they need comes with them.
var defaultPackages = []string{
	// root and initrd
	"base-files", "bash", "coreutils", "util-linux", "mount", "login", "passwd",
	"systemd", "systemd-sysv", "udev", "dbus", "kmod", "libpam-runtime", "libpam-modules",
	"cryptsetup-bin", "dmsetup", "linux-image-cloud-amd64", "grep", "sed",
	// tools
	"systemd-boot-efi", "rpm", "mawk", "findutils", "gcc", "libc6-dev", "binutils",
	"cargo-web", "rustc-web", "zstd", "tar", "gzip", "diffutils",
	// the debug variant
	"strace",
}

// sourcePackages are read for the content of our own packages; base-passwd does not become an RPM.
var sourcePackages = []string{"base-passwd", "base-files"}

// droppedPackages are what only Debian's maintainer scripts and its package manager need. apt is told that they are installed, and
// no RPM requires them.
var droppedPackages = map[string]bool{
	"adduser":             true,
	"base-passwd":         true,
	"cdebconf":            true,
	"debconf":             true,
	"debconf-2.0":         true,
	"dpkg":                true,
	"gcc-12-base":         true,
	"init-system-helpers": true,
	"initramfs-tools":     true,
	"libcap2-bin":         true,
	"libdebconfclient0":   true,
	"linux-base":          true,
	"perl":                true,
	"perl-base":           true,
	"sensible-utils":      true,
	"usrmerge":            true,
	"usr-is-merged":       true,
}
