// Package diff says in what two disk images differ, down to the file, the
// section and the package.
//
// Limits first. It looks into partition tables (GUID, and the MBR's primary
// ones), dm-verity hash areas, FAT, EROFS, squashfs and ext2 to ext4; in files
// into PE images, ELF files (sections, symbols and notes, not instructions),
// what gzip, xz, zstd, bzip2 and lz4 compressed, archives of tar, cpio, ar and
// zip, container images in archives, RPM packages and databases, catalogs of translations, compiled Python,
// JSON and text; and into these in each other, maxDepth deep. Of everything
// else, and of everything damaged, it says the bytes: where the first
// difference is, how many there are, and what lies there on the side that is
// sound. XFS, btrfs, LUKS, LVM and ISO 9660 are named, and only their bytes
// compared.
//
// The promise is that no difference is left without an explanation: the
// disks are compared byte for byte first, and what no structure accounts for
// afterwards (padding, slack, gaps, second copies) is named by its place.
// Damage is never an error, it is a finding.
//
// How much is said, unpacked and held is bounded. What was left out is counted
// or said to be not looked into (see NotCompared): it is never taken for
// equal. What is looked into lies in memory, and where it is large in files
// without names in the folder for temporary ones.
package diff

// Node is a difference in diffoscope's JSON shape (presenters/json.py), so
// that its viewers show it. A side that has no counterpart has the source
// "/dev/null".
type Node struct {
	Source1     string   `json:"source1"`
	Source2     string   `json:"source2"`
	Comments    []string `json:"comments,omitempty"`
	UnifiedDiff *string  `json:"unified_diff"`
	Details     []*Node  `json:"details,omitempty"`
}

// missing is the source of a side that has no counterpart.
const missing = "/dev/null"

func (n *Node) comment(s string) {
	if n != nil {
		n.Comments = append(n.Comments, oneLine(s))
	}
}

// said tells whether the node says anything.
func (n *Node) said() bool {
	return n.UnifiedDiff != nil || len(n.Comments) > 0 || len(n.Details) > 0
}

// Path is what the node is about: the source that is there.
func (n *Node) Path() string {
	if n.Source1 == missing {
		return n.Source2
	}
	return n.Source1
}
