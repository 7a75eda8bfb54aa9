package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/build/sandbox"
	"caisson/lock"
)

// Where a program that makes a file system finds the tree and leaves the
// result.
const (
	mkfsTree   = "/src"
	mkfsOut    = "/out"
	mkfsResult = "root.img"
)

// mkfsArgs is the command that makes the root of a folder: mkfs.erofs(1) or
// mksquashfs(1). Both take the times from SOURCE_DATE_EPOCH as well, and
// mksquashfs takes them from nothing else then.
func mkfsArgs(format string, c lock.Compression, uuid string, epoch int64) []string {
	out := mkfsOut + "/" + mkfsResult
	if format == lock.RootSquashfs {
		args := []string{"mksquashfs", mkfsTree, out, "-noappend", "-no-progress", "-no-recovery", "-reproducible", "-comp", c.Algorithm}
		switch {
		case c.Level != 0:
			args = append(args, "-Xcompression-level", strconv.Itoa(c.Level))
		case c.Algorithm == "lz4":
			args = append(args, "-Xhc")
		}
		return args
	}
	z := c.Algorithm
	if c.Level != 0 {
		z += "," + strconv.Itoa(c.Level)
	}
	return []string{"mkfs.erofs", "-z" + z, "-U" + uuid, "-T" + strconv.FormatInt(epoch, 10), out, mkfsTree}
}

// makeRoot has the tools set's own program make a compressed root, and returns
// the partition's size.
func (d *disk) makeRoot(ctx context.Context, t *rootfs.Tree) (size int64, err error) {
	tree, out := filepath.Join(d.work, "mkfs-tree"), filepath.Join(d.work, "mkfs-out")
	if err := makeDir(out); err != nil {
		return 0, err
	}
	shown, err := layOut(ctx, t, tree, d.work, d.Lock.Epoch)
	if err != nil {
		return 0, fmt.Errorf("laying the root out: %w", err)
	}
	id := derive("root", d.Lock.Name, d.Variant)
	args := mkfsArgs(d.image.Root, *d.image.Compression, fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), d.Lock.Epoch)
	if _, err := os.Stat(filepath.Join(d.tools, "usr/bin", args[0])); err != nil {
		if _, err := os.Stat(filepath.Join(d.tools, "usr/sbin", args[0])); err != nil {
			return 0, fmt.Errorf("the root is to be %s, and no package of the tools set has %s", d.image.Root, args[0])
		}
	}
	_, _, err = d.run(ctx, nil, sandbox.Spec{
		Name: "make " + d.image.Root, Root: d.tools, Args: args, Shown: shown,
		Mounts: []sandbox.Mount{{Source: tree, Target: mkfsTree}, {Source: out, Target: mkfsOut, Writable: true}},
	})
	if err != nil {
		return 0, err
	}
	f, err := os.Open(filepath.Join(out, mkfsResult))
	if err != nil {
		return 0, fmt.Errorf("%s left no file system: %w", args[0], err)
	}
	defer f.Close()
	if size, err = io.Copy(io.NewOffsetWriter(untilDone{ctx, d.f}, d.data.start), f); err != nil {
		return 0, fmt.Errorf("copying the root: %w", err)
	}
	for _, dir := range []string{tree, out} {
		if err := removeAll(dir); err != nil {
			return 0, err
		}
	}
	return roundUp(size), nil
}

// layOut makes the tree's names in a folder, and says what each file is to look
// like: owners, modes, devices, times and attributes are not the folder's.
// Files that lie below own are linked, as they are nobody else's.
func layOut(ctx context.Context, t *rootfs.Tree, dir, own string, epoch int64) (map[sandbox.FileID]sandbox.Shown, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	links := map[string]uint32{}
	for _, e := range t.Entries() {
		if e.HardLink != "" {
			links[e.HardLink]++
		}
	}
	shown := map[sandbox.FileID]sandbox.Shown{}
	for _, e := range t.Entries() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name := filepath.Join(dir, e.Path)
		if e.HardLink != "" {
			if err := os.Link(filepath.Join(dir, e.HardLink), name); err != nil {
				return nil, err
			}
			continue
		}
		s := sandbox.Shown{
			Mode: e.Mode, UID: e.UID, GID: e.GID, Rdev: uint64(e.Rdev),
			Links: 1 + links[e.Path], Mtime: epoch, Xattrs: e.Xattrs,
		}
		id, err := layName(e, name, own, shown)
		if err != nil {
			return nil, err
		}
		shown[id] = s
	}
	return shown, nil
}

// layName makes one name, of a file that no other entry has.
func layName(e *rootfs.Entry, name, own string, taken map[sandbox.FileID]sandbox.Shown) (id sandbox.FileID, err error) {
	switch {
	case e.Is(unix.S_IFDIR):
		if e.Path != "" {
			err = os.Mkdir(name, 0o700)
		}
	case e.Is(unix.S_IFLNK):
		err = os.Symlink(e.Target, name)
	case e.Is(unix.S_IFREG):
		if strings.HasPrefix(e.Source, own+"/") {
			if id, err := fileID(e.Source); err != nil {
				return id, err
			} else if _, ok := taken[id]; !ok {
				return id, os.Link(e.Source, name)
			}
		}
		err = copyEntry(e, name)
	default: // what is no file, folder or link is shown as what it is
		err = os.WriteFile(name, nil, 0o600)
	}
	if err != nil {
		return id, err
	}
	return fileID(name)
}

func fileID(name string) (sandbox.FileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return sandbox.FileID{}, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	return sandbox.FileID{Dev: st.Dev, Ino: st.Ino}, nil
}

func copyEntry(e *rootfs.Entry, name string) error {
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Close()
}
