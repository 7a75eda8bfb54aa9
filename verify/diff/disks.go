package diff

import (
	"context"
	"fmt"
	"io"
	"strings"

	"caisson/build/image/gpt"
)

// Source is one of two disks.
type Source struct {
	// Name is what the disk is called in the findings, such as "rebuild".
	Name string
	Disk io.ReaderAt
	Size int64 // bytes
	// Owner is what a file is made of, a package or a step; "" where that is
	// not known. part is "root", "initrd" or "esp", path has a slash in
	// front. Owner may be nil.
	Owner func(part, path string) string
}

// Options bound what is said; 0 stands for 2000 nodes and 1 MiB of unified
// diffs.
type Options struct {
	MaxNodes int
	MaxBytes int
}

// Disks says in what two disks differ: nothing where they are equal, and at
// least one node otherwise. An error means that a disk could not be read;
// damaged structures are findings. A disk may also be anything else that can
// be in a file: where neither side has partitions, it is looked into as such.
func Disks(ctx context.Context, a, b Source, o Options) ([]*Node, error) {
	changed, err := compare(ctx, a.Disk, b.Disk, min(a.Size, b.Size))
	if err != nil {
		return nil, err
	}
	if len(changed) == 0 && a.Size == b.Size {
		return nil, nil
	}
	d := newDiffer(ctx, a, b, o)
	d.nodes += regionNodes
	top := &Node{}
	if tables := d.readTables(); tables[0].partitioned() || tables[1].partitioned() {
		if a.Size != b.Size {
			n := d.child(top, "disk")
			n.comment(fmt.Sprintf("size: %d and %d bytes", a.Size, b.Size))
			if len(changed) == 0 {
				n.comment("one is the beginning of the other")
			}
		}
		if len(changed) > 0 {
			d.disk(top, tables, changed)
		}
	} else {
		d.file(top, changed)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	prune(top)
	d.finish(top)
	return top.Details, nil
}

// regionNodes are for the regions of a disk, in addition to those that the
// caller allows, so that each has one.
const regionNodes = 20

// What changes which measurement.
const (
	inNoPCR   = "in no PCR: only a comparison of the whole disk sees it"
	inPCR5    = "changes PCR 5, into which the firmware measures the primary table"
	inRoot    = "changes the root hash, and with it the command line and PCR 4, 9 and 11; where the command line stays, the kernel refuses these blocks"
	inLookup  = "in no PCR itself, but the firmware finds the files by it"
	inTree    = "follows the data of the root; in no PCR itself: where it contradicts the root hash the kernel refuses the blocks below"
	inUKI     = "changes PCR 4, into which the firmware measures the whole UKI"
	inSection = "changes PCR 4, and PCR 11 where the stub measures this section"
	inCmdline = "changes PCR 4, 9 and 11"
)

// file compares what is no disk: a file system, an initrd, a UKI, any file.
func (d *differ) file(top *Node, changed spans) {
	x, y := io.NewSectionReader(d.a.Disk, 0, d.a.Size), io.NewSectionReader(d.b.Disk, 0, d.b.Size)
	name := kindOf(x, d.a.Name).name
	if name == "" || name != kindOf(y, d.b.Name).name {
		name = "content"
	}
	n := d.child(top, name)
	if name == fileSystem(x) {
		v := volume{part: "root", a: x, b: y, changed: changed, boot: true}
		sizes(n, blob{sizeA: d.a.Size, sizeB: d.b.Size})
		if d.inFileSystem(n, v, name); len(n.Details) > 0 || n.UnifiedDiff != nil {
			return
		}
	}
	d.contents(n, spot{part: "root", boot: true}, x, y)
}

// disk compares region by region.
func (d *differ) disk(top *Node, tables [2]*table, changed spans) {
	claimed := d.tables(top, tables)
	for _, p := range pair(tables[0].parts, tables[1].parts) {
		for i, x := range []*part{p.a, p.b} {
			if x != nil {
				claimed = append(claimed, x.span())
			}
			if other := []*part{p.b, p.a}[i]; x != nil && other == nil {
				n := d.only(top, x.label(), i == 0)
				n.comment(fmt.Sprintf("a partition of %d bytes from %s, type %s", x.Size(), place(x.Start()), x.Type))
			}
		}
		if p.a != nil && p.b != nil {
			d.partition(top, *p.a, *p.b, changed, inRootOf(tables))
		}
	}
	d.gaps(top, tables, normalise(claimed), changed)
}

// inRootOf says what the data of a root change on these disks.
func inRootOf(tables [2]*table) string {
	for _, t := range tables {
		for _, p := range t.parts {
			if p.name() == "root-verity" {
				return inRoot
			}
		}
	}
	return ""
}

// partition compares one that both disks have. sealed says what changes where
// a root does, and is empty where no partition has a hash tree for it.
func (d *differ) partition(top *Node, a, b part, changed spans, sealed string) {
	x := io.NewSectionReader(d.a.Disk, a.Start(), a.Size())
	y := io.NewSectionReader(d.b.Disk, b.Start(), b.Size())
	inside := changed.within(a.span())
	if a.span() != b.span() {
		var err error
		if inside, err = compare(d.ctx, x, y, min(a.Size(), b.Size())); err != nil {
			d.child(top, a.label()).comment(err.Error())
			return
		}
		if len(inside) == 0 && a.Size() == b.Size() {
			return
		}
	}
	if len(inside) == 0 && a.Size() == b.Size() {
		return
	}
	n := d.child(top, a.label())
	if a.Size() != b.Size() {
		n.comment(fmt.Sprintf("size: %d and %d bytes", a.Size(), b.Size()))
	}
	if a.Start() != b.Start() {
		n.comment(fmt.Sprintf("starts at %s and %s", place(a.Start()), place(b.Start())))
	}
	v, appended := d.split(n, volume{name: a.name(), part: a.name(), a: x, b: y, changed: inside, boot: a.Type == gpt.TypeESP}, a, b)
	switch {
	case a.name() != "root":
		v.measured = "in no PCR, unless something that is booted measures the partition"
	case appended || sealed != "":
		v.measured = inRoot
	default:
		v.measured = "in no PCR: the disk has no hash tree for it"
	}
	d.volume(n, v, a, b)
	if n != nil && len(n.Details) == 0 && n.UnifiedDiff == nil {
		d.raw(n, x, y, 0, inside, nil)
	}
}

// volume compares what partitions hold.
func (d *differ) volume(n *Node, v volume, a, b part) {
	switch kind := v.kind(a, b); {
	case len(v.changed) == 0 && a.Size() == b.Size():
	case kind == "fat":
		d.fat(n, v)
	case kind == "verity":
		d.verity(n, v)
	case fileSystem(v.a) != "" || fileSystem(v.b) != "":
		d.root(n, v, kind)
	default:
		n.comment(v.measured)
		if kind != "" {
			n.comment(notFurther + "it holds " + kind)
		}
		d.raw(n, v.a, v.b, 0, v.changed, nil)
	}
}

// volume is a file system of both disks, or something else in a partition.
type volume struct {
	name     string // "" where it is all there is
	part     string // as Source.Owner has it
	a, b     *io.SectionReader
	changed  spans  // counted from the start
	measured string // what changes with it; "" where nothing is known
	boot     bool   // firmware starts what is in it
	depth    int    // of things around it
}

// prefix is what is in front of the paths of what is in the volume.
func (v volume) prefix() string {
	switch {
	case v.name == "":
		return ""
	case v.depth > 0:
		return join(v.name, "")
	}
	return v.name + ":"
}

// beside is the path of something in the volume that is no file.
func beside(prefix, name string) string {
	if strings.HasSuffix(prefix, ":") {
		return prefix + " " + name
	}
	return prefix + name
}

// spot is that of the volume.
func (v volume) spot() spot { return spot{part: v.part, boot: v.boot, depth: v.depth} }

// kind is what the partitions hold, by what either side shows.
func (v volume) kind(a, b part) string {
	for _, r := range []io.ReaderAt{v.a, v.b} {
		if kind := fileSystem(r); kind != "" {
			return kind
		}
	}
	for _, r := range []io.ReaderAt{v.a, v.b} {
		if string(readUpTo(r, 0, 8)) == "verity\x00\x00" {
			return "verity"
		}
		if kind := opaque(r); kind != "" {
			return kind
		}
	}
	if a.Type == gpt.TypeESP || b.Type == gpt.TypeESP {
		return "fat"
	}
	return ""
}

// gaps shows what differs outside of all tables and partitions.
func (d *differ) gaps(top *Node, tables [2]*table, claimed, changed spans) {
	left := changed.minus(claimed)
	if len(left) == 0 {
		return
	}
	n := d.child(top, "outside of the partitions")
	n.comment(inNoPCR)
	start := int64(0)
	for _, c := range append(claimed, span{min(d.a.Size, d.b.Size), min(d.a.Size, d.b.Size)}) {
		gap := span{start, c.off}
		start = c.end
		if inside := left.within(gap); len(inside) > 0 {
			g := d.child(n, fmt.Sprintf("bytes %d to %d", gap.off, gap.end-1))
			g.comment(tables[0].around(gap))
			d.raw(g, io.NewSectionReader(d.a.Disk, gap.off, gap.end-gap.off), io.NewSectionReader(d.b.Disk, gap.off, gap.end-gap.off), gap.off, inside, nil)
		}
	}
}
