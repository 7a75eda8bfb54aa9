// Package cpio writes and reads cpio archives of the "newc" format: those
// that Linux unpacks as an initrd and that RPM has as its payload.
//
// Sizes, times and all other numbers are 32 bits wide and not negative, so a
// file has less than 4 GiB (RPM gets around that, see [Reader.Stripped]).
// Names have at most 4095 bytes, and so have the targets of symbolic links,
// which is what Linux takes. The variants with a checksum ("070702"), with
// octal numbers ("070707") and with binary numbers are refused.
//
// An entry is
//
//	magic   6 bytes, "070701"
//	fields  13 numbers of 8 hexadecimal digits
//	name    with a NUL at its end, which the name's size counts
//	data    of a file, or the target of a symbolic link without a NUL
//
// Name and data are followed by zeros up to a multiple of 4 bytes from the
// start of the archive. The last entry has the name "TRAILER!!!".
//
// The names of one file share device and inode numbers, which the caller
// chooses, and count in Nlink. The data comes with one of the names, the
// others have size 0: Linux takes it with any of them, RPM has it with the
// last.
//
// See "man 5 cpio" and Documentation/driver-api/early-userspace/buffer-format.rst
// of Linux.
package cpio

const (
	magic         = "070701"
	magicChecksum = "070702"
	magicStripped = "07070X"
	trailer       = "TRAILER!!!"

	headerSize   = 110 // magic and fields
	strippedSize = 14  // magic and one field
	fieldSize    = 8   // hexadecimal digits
	align        = 4
	maxName      = 4096 // with the NUL: PATH_MAX of Linux
)

// File types, in [Header.Mode].
const (
	typeMask    = 0o170000
	typeSymlink = 0o120000
)

// Header describes an entry.
type Header struct {
	// Name is what the archive has, which by convention is a path without a
	// slash in front ("." for the root), and in RPM payloads one that starts
	// with "./". It is not checked for "..".
	Name string
	// Mode is the file type (S_IFMT) and the permissions.
	Mode     uint32
	UID, GID uint32
	Nlink    uint32
	Mtime    int64 // seconds since 1970
	Size     int64 // of the data in bytes
	Ino      uint32
	// The device that the file is on.
	DevMajor, DevMinor uint32
	// The device that a device node stands for.
	RdevMajor, RdevMinor uint32
}

// fields are the numbers of a header in the order of the format.
type fields [13]uint32

// Places in fields.
const (
	fIno = iota
	fMode
	fUID
	fGID
	fNlink
	fMtime
	fSize
	fDevMajor
	fDevMinor
	fRdevMajor
	fRdevMinor
	fNameSize
	fChecksum // 0
)

// padding returns how many zeros follow n bytes.
func padding(n int64) int64 { return -n & (align - 1) }
