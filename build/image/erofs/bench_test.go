package erofs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"caisson/lock/tooltest"
)

// benchTree makes a root of about 1.3 GB in 12,000 files, of sizes as roots
// have them: many small ones and few large ones. Some have two names.
func benchTree(b *testing.B, root string) (total int64) {
	noise := content("bench", 32<<20)
	for i := range 12000 {
		dir := filepath.Join(root, fmt.Sprint(i%40), fmt.Sprint(i%300))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		size := int64(i*7919%6000) + 500
		switch {
		case i%12 == 0:
			size *= 40
		case i%100 == 1:
			size *= 2900
		}
		size = min(size, int64(len(noise)))
		total += size
		path := filepath.Join(dir, fmt.Sprintf("file-%d", i))
		if err := os.WriteFile(path, noise[:size], 0o644); err != nil {
			b.Fatal(err)
		}
		if i%50 == 0 {
			if err := os.Link(path, path+"-link"); err != nil {
				b.Fatal(err)
			}
		}
	}
	return total
}

// treeEntries returns the entries of a folder.
func treeEntries(b *testing.B, root string) []Entry {
	var entries []Entry
	first := make(map[uint64]string)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name == "." {
			name = ""
		}
		e := Entry{Path: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: buildTime}
		if st.Mode&typeMask == typeRegular {
			if first[st.Ino] != "" {
				e.HardLink = first[st.Ino]
			}
			first[st.Ino] = name
			e.Size = st.Size
			e.Open = func() (io.ReadCloser, error) { return os.Open(path) }
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return entries
}

// BenchmarkWrite makes an image of a folder, and has mkfs.erofs do so too:
// the ratios are our wall time by its, and our size.
func BenchmarkWrite(b *testing.B) {
	mkfs := tooltest.Find(b, "mkfs.erofs")
	dir := b.TempDir()
	root, ours, theirs := filepath.Join(dir, "root"), filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	b.SetBytes(benchTree(b, root))
	var elapsed time.Duration
	for b.Loop() {
		b.StopTimer()
		start := time.Now()
		args := []string{fmt.Sprintf("-T%d", buildTime), "-U00000000-0000-0000-0000-000000000001", theirs, root}
		if out, err := exec.Command(mkfs, args...).CombinedOutput(); err != nil {
			b.Fatalf("mkfs.erofs: %v\n%s", err, out)
		}
		elapsed += time.Since(start)
		b.StartTimer()
		f, err := os.Create(ours)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Write(f, treeEntries(b, root), testOptions()); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/elapsed.Seconds(), "x-mkfs.erofs")
	b.ReportMetric(float64(fileSize(b, ours))/float64(fileSize(b, theirs)), "x-size")
}

func fileSize(b *testing.B, path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}
