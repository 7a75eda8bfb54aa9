package build

import (
	"bufio"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/prefetch/cas"
)

// NoSpaceError says that the output folder has no room for a build.
type NoSpaceError struct {
	Dir        string
	Need, Free int64 // bytes; Need is an estimate
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("a build in %s needs about %s, and %s are free there", e.Dir, megabytes(e.Need), megabytes(e.Free))
}

// megabytes is a number of bytes in MiB, or in GiB where it is one or more.
func megabytes(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// What is not in a lock, for estimates.
const (
	blockSize  = 4 << 10   // what a small file takes
	compileFor = 256 << 20 // what a compiler leaves beside its inputs
	fixedSpace = 64 << 20  // logs, tables, what scriptlets make
	unknownRPM = 4         // times its size, a package whose header cannot be read
	unpacked   = 4         // times its size, anything else that is packed
)

// Space is how many bytes a build needs in its output folder at the same time,
// about, and rather more than less: three roots as their packages' headers say,
// what the steps unpack and compile, the disk, and the image beside it, or the
// archives. What the store lacks is guessed by its size in the lock.
func Space(l *lock.Lock, s *cas.Store, arch, variant string) int64 {
	set := func(name string) []*lock.Input { return l.Of(arch, l.SetFor(name, variant)) }
	sizes := installedSizes(s, set(lock.SetTools), set(lock.SetRoot), set(lock.SetInitrd))
	sum := func(inputs []*lock.Input) (n int64) {
		for _, in := range inputs {
			n += sizes[in]
		}
		return n
	}
	root, initrd := sum(set(lock.SetRoot)), sum(set(lock.SetInitrd))
	need := fixedSpace + sum(set(lock.SetTools)) + root + initrd
	var placed int64
	for _, in := range Inputs(l, arch, variant) {
		switch in.Kind {
		case lock.KindRPM:
		case lock.KindFile, lock.KindTree:
			placed += in.Size
		default:
			placed += unpacked * in.Size
		}
	}
	for _, st := range l.Steps {
		if st.Run == "" {
			placed += compileFor
		}
	}
	im, _ := l.ImageFor(variant)
	if im.IsArchive() { // each has the root, which one of them compresses
		return need + placed + int64(len(im.Output))*(root+placed)
	}
	// The initrd is packed once by itself and once in the UKI; the disk has root,
	// hash tree and UKI, and the image, compressed, is seldom more than half of it.
	packed := initrd / 2
	disk := root + root/64 + packed
	need += placed + 2*packed + disk
	for _, o := range im.Output {
		switch o {
		case lock.OutputQcow2:
			need += disk / 2
		case lock.OutputVHD, lock.OutputNetboot:
			need += disk
		}
	}
	if im.Compression != nil {
		need += root // as the program leaves it, before it is copied to the disk
	}
	return need
}

// installedSizes is what packages take when they are installed.
func installedSizes(s *cas.Store, sets ...[]*lock.Input) map[*lock.Input]int64 {
	sizes := map[*lock.Input]int64{}
	var all []*lock.Input
	for _, set := range sets {
		for _, in := range set {
			if _, ok := sizes[in]; !ok {
				sizes[in] = unknownRPM * in.Size
				all = append(all, in)
			}
		}
	}
	found := make([]int64, len(all))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0)) //nolint:forbidigo // it changes no bytes
	for i, in := range all {
		g.Go(func() error {
			found[i] = installedSize(s, in)
			return nil
		})
	}
	_ = g.Wait() // what cannot be read is told of by who needs it
	for i, in := range all {
		if found[i] > 0 {
			sizes[in] = found[i]
		}
	}
	return sizes
}

// installedSize is what a package takes, by its header; 0 where that cannot be
// read.
func installedSize(s *cas.Store, in *lock.Input) (n int64) {
	f, err := s.Open(in.SHA256)
	if err != nil {
		return 0
	}
	defer f.Close()
	p, err := rootfs.ReadPackage(bufio.NewReader(f))
	if err != nil {
		return 0
	}
	names := map[uint32]bool{}
	for i := range p.Files {
		f := &p.Files[i]
		n += blockSize
		if f.Ghost || f.Mode&unix.S_IFMT != unix.S_IFREG || f.Ino != 0 && names[f.Ino] {
			continue
		}
		names[f.Ino] = true
		n += f.Size
	}
	return n
}

// CheckSpace compares what a build needs with what there is in a folder: the error is
// a *NoSpaceError.
func CheckSpace(dir string, need int64) error {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Blocks == 0 { // some file systems do not say
		return nil
	}
	if free := int64(st.Bavail) * st.Bsize; free < need { //nolint:gosec // no disk has so many blocks
		return &NoSpaceError{Dir: dir, Need: need, Free: free}
	}
	return nil
}

// scarce says, for the error of a program, that little is free on a disk, and
// nothing where that cannot be why it failed. rpm itself names other reasons, and
// what it could not write in whole it has removed by then.
func scarce(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Blocks == 0 {
		return ""
	}
	free := int64(st.Bavail) * st.Bsize //nolint:gosec // no disk has so many blocks
	if free >= fixedSpace {
		return ""
	}
	return fmt.Sprintf(", and only %s are free in %s", megabytes(free), dir)
}

// checkClaims looks that what a step left in dir claims no more bytes than the disk
// there has altogether: a sparse file of some TiB takes no room there, and days to
// read.
func checkClaims(step, dir string, files map[string]stamp) error {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Blocks == 0 { // some file systems do not say
		return nil
	}
	disk := st.Blocks * uint64(st.Bsize) //nolint:gosec // it is positive
	var sum, most uint64
	var largest string
	counted := map[uint64]bool{}
	for p, f := range files {
		if f.mode&unix.S_IFMT != unix.S_IFREG || counted[f.ino] {
			continue
		}
		counted[f.ino] = true
		sum += min(f.size, disk+1) // so that it does not run over
		if f.size > most || f.size == most && p < largest {
			most, largest = f.size, p
		}
	}
	if sum <= disk {
		return nil
	}
	return &StepError{Step: step, Reason: fmt.Sprintf("the files that it left have more bytes than the disk, which has %s; /%s has %d", megabytes(int64(disk)), largest, most)} //nolint:gosec // no disk is so large
}
