package objects

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

func run(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	tooltest.Find(t, args[0])
	c := exec.Command(args[0], args[1:]...)
	c.Dir, c.Stdin = dir, strings.NewReader(stdin)
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, &errs)
	}
	return string(out)
}

// text is lines that do not compress away, from a seed.
func text(seed uint32, lines int) string {
	var b strings.Builder
	for range lines {
		seed = seed*1664525 + 1013904223
		fmt.Fprintf(&b, "%08x%08x\n", seed, seed*2654435761)
	}
	return b.String()
}

// history makes a repository whose files are changes of each other, large and
// small.
func history(t testing.TB, format string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, dir, "", "git", "init", "-q", "--object-format="+format)
	large, small := text(1, 70_000), text(2, 500)
	for i := range 6 {
		write(t, dir, "large", large[:len(large)/6*(i+1)]+fmt.Sprint(i)+large[len(large)/2:])
		write(t, dir, fmt.Sprint("dir/small-", i), small+text(uint32(i), 10))
		write(t, dir, "empty", "")
		run(t, dir, "", "git", "add", "-A")
		run(t, dir, "", "git", "commit", "-q", "-m", fmt.Sprint(i))
	}
	run(t, dir, "", "git", "tag", "-a", "-m", "m", "v1")
	return dir
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

var noLimits = Limits{Object: 1 << 30, Total: 1 << 40}

// received is a pack in a folder of its own.
func received(t testing.TB, pack []byte) (objects string, f *os.File) {
	t.Helper()
	objects = t.TempDir()
	write(t, objects, "pack/incoming", string(pack))
	f, err := os.Open(filepath.Join(objects, "pack", "incoming"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return objects, f
}

// everything compares all objects of a repository with what git says.
func everything(t *testing.T, repo string, s *Store) {
	t.Helper()
	list := run(t, repo, "", "git", "cat-file", "--batch-all-objects", "--batch-check")
	n := 0
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		want := run(t, repo, "", "git", "cat-file", f[1], f[0])
		o, err := s.Open(f[0])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got, err := io.ReadAll(o)
		if err := errors.Join(err, o.Close()); err != nil || string(got) != want || o.Type != f[1] || strconv.FormatInt(o.Size, 10) != f[2] {
			t.Errorf("%s: got a %s of %d bytes, %v", line, o.Type, o.Size, err)
		}
		if size, err := s.Size(f[0]); err != nil || size != o.Size {
			t.Errorf("%s: size %d, %v", line, size, err)
		}
		if ids, err := s.Find(f[0][:12]); err != nil || len(ids) != 1 || ids[0] != f[0] {
			t.Errorf("%s: found %v, %v", line, ids, err)
		}
		n++
	}
	if n < 25 {
		t.Errorf("%d objects", n)
	}
	if _, err := s.Open(strings.Repeat("0", s.hexLen)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := s.Open("../../../etc/passwd"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is no id: %v", err)
	}
}

// The index is git's own to the byte, and every object is what git says,
// whatever hash and kind of changes the pack has.
func TestIndexIsGits(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		repo := history(t, format)
		hexLen := len(strings.TrimSpace(run(t, repo, "", "git", "rev-parse", "HEAD")))
		for name, args := range map[string][]string{
			"by offset": {"--delta-base-offset", "--depth=50"}, "by id": {"--depth=4095"}, "whole": {"--depth=0", "--window=0"},
		} {
			t.Run(format+" "+name, func(t *testing.T) {
				pack := run(t, repo, "", append([]string{"git", "pack-objects", "-q", "--all", "--stdout", "--no-reuse-delta"}, args...)...)
				dir, f := received(t, []byte(pack))
				if err := Index(t.Context(), f, hexLen, noLimits); err != nil {
					t.Fatal(err)
				}
				names, _ := filepath.Glob(dir + "/pack/*")
				if len(names) != 2 || !strings.HasSuffix(names[0], ".idx") {
					t.Fatalf("it left %q", names)
				}
				theirs := filepath.Join(t.TempDir(), "idx")
				run(t, repo, "", "git", "index-pack", "--object-format="+format, "-o", theirs, names[1])
				want, err := os.ReadFile(theirs)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(names[0]); err != nil || !bytes.Equal(got, want) {
					t.Errorf("the index is another than git's: %v", err)
				}
				s, err := Open(dir, hexLen, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				everything(t, repo, s)
				if left, _ := os.ReadDir(s.temp); len(left) > 0 {
					t.Errorf("left over: %v", left)
				}
			})
		}
	}
}

// A repository of this machine: loose objects, packs and alternates.
func TestOpenRepository(t *testing.T) {
	repo := history(t, "sha1")
	check := func(dir string) {
		t.Helper()
		s, err := Open(dir, 40, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		everything(t, repo, s)
	}
	check(repo + "/.git/objects") // loose
	run(t, repo, "", "git", "repack", "-q", "-d", "HEAD~3")
	clone := t.TempDir()
	run(t, "", "", "git", "clone", "-q", "--shared", repo, clone)
	check(clone + "/.git/objects")
	run(t, repo, "", "git", "gc", "-q")
	check(clone + "/.git/objects")
	write(t, repo, ".git/objects/info/alternates", "../objects\n")
	if _, err := Open(repo+"/.git/objects", 40, ""); err == nil || !strings.Contains(err.Error(), "alternates") {
		t.Errorf("alternates in a circle: %v", err)
	}
}

// object is an object of a hostile pack: its head, and what is deflated.
type object struct{ head, content string }

// hostile is a pack that claims to have n objects, with a good checksum.
func hostile(n uint32, objects ...object) []byte {
	b := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), n)
	w := zlib.NewWriter(nil)
	for _, o := range objects {
		b = append(b, o.head...)
		var z bytes.Buffer
		w.Reset(&z)
		w.Write([]byte(o.content))
		w.Close()
		b = append(b, z.Bytes()...)
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func TestHostilePacks(t *testing.T) {
	blob := object{"\x33", "abc"}
	unknown := strings.Repeat("x", 20)
	zeros := object{"\xb0\x80\x08", strings.Repeat("\x00", 1<<14)}
	for name, c := range map[string]struct {
		pack []byte
		want string
	}{
		"fine":         {hostile(2, blob, changeOf("\x03\x06\x90\x03\x03def", object{"\x33", "abc"})), ""},
		"empty":        {nil, "EOF"},
		"no pack":      {[]byte("PACKED 12345"), "version"},
		"count":        {hostile(0xffffffff), "want 1000000 at most"},
		"count below":  {hostile(1_000_000), "and has 32 bytes"},
		"fewer":        {hostile(2, blob, object{"", ""}), "at byte 28"},
		"more":         {hostile(1, blob, blob), "checksum"},
		"checksum":     {append(hostile(1, blob)[:47], 0), "checksum"},
		"after":        {append(hostile(1, blob), 'x'), "something follows"},
		"size":         {hostile(1, object{"\xb0\x80\x80\x80\x80\x10", "abc"}), "want 1048576 at most"},
		"size, no end": {hostile(1, object{"\xb0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "abc"}), "more bytes than there can be"},
		"longer":       {hostile(1, object{"\x33", strings.Repeat("a", 100_000)}), "longer than it says"},
		"shorter":      {hostile(1, object{"\x39", "abc"}), "EOF"},
		"no zlib":      {hostile(1, object{"\x33abcdefghijklmnopqrst", ""}), "zlib"},
		"makes much":   {hostile(2, blob, object{"\x6a\x10", "\x03\xff\xff\xff\xff\x0f\x90\x03aa"}), "it makes 4294967295 bytes"},
		"cut change":   {hostile(2, blob, object{"\x61\x10", "\x03"}), "EOF"},
		"other base":   {hostile(2, blob, object{"\x64\x10", "\x04\x04\x90\x03"}), "of something of 4 bytes, got 3"},
		"beyond base":  {hostile(2, blob, object{"\x64\x10", "\x03\x04\x90\x04"}), "cannot be applied"},
		"before base":  {hostile(2, blob, changeOf("\x03\x04\x9f\xff\xff\xff\xff\x04", blob)), "cannot be applied"},
		"reserved":     {hostile(2, blob, object{"\x63\x10", "\x03\x04\x00"}), "cannot be applied"},
		"too much":     {hostile(2, blob, object{"\x66\x10", "\x03\x01\x90\x03\x90\x03"}), "cannot be applied"},
		"not enough":   {hostile(2, blob, object{"\x64\x10", "\x03\x09\x90\x03"}), "EOF"},
		"type":         {hostile(1, object{"\x53", "abc"}), "type 5"},
		"type 0":       {hostile(1, object{"\x03", "abc"}), "type 0"},
		"itself":       {hostile(1, object{"\x64\x00", "\x03\x03\x90\x03"}), "not before it"},
		"before":       {hostile(2, blob, object{"\x64\x7f", "\x03\x03\x90\x03"}), "not before it"},
		"in between":   {hostile(2, blob, object{"\x64\x0b", "\x03\x03\x90\x03"}), "no object begins"},
		"far before":   {hostile(2, blob, object{"\x64\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x03\x03\x90\x03"}), "not before it"},
		"unknown base": {hostile(2, blob, object{"\x74" + unknown, "\x03\x03\x90\x03"}), "1 of its changes"},
		"bomb":         {hostile(3, zeros, changeOf(bombDelta(1<<14, 1<<20), zeros), changeOf(bombDelta(1<<14, 1<<20), zeros, changeOf(bombDelta(1<<14, 1<<20), zeros))), "together"},
	} {
		_, f := received(t, c.pack)
		err := Index(t.Context(), f, 40, Limits{Object: 1 << 20, Total: 1<<20 + 1<<18})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if names, _ := filepath.Glob(filepath.Dir(f.Name()) + "/*"); c.want != "" && len(names) != 1 {
			t.Errorf("%s: it left %q", name, names)
		}
	}
}

// changeOf is a change of the first of some objects that are before it.
func changeOf(change string, before ...object) object {
	back := 0
	for _, o := range before {
		back += len(hostile(1, o)) - 32
	}
	size := len(change)
	head := []byte{0xe0 | byte(size&15), byte(size >> 4)} // below 2048 bytes
	offset := []byte{byte(back & 0x7f)}
	for back >>= 7; back > 0; back >>= 7 {
		back--
		offset = append([]byte{0x80 | byte(back&0x7f)}, offset...)
	}
	return object{string(append(head, offset...)), change}
}

// bombDelta makes to bytes of from.
func bombDelta(from, to int) string {
	b := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(from)), uint64(to))
	for ; to > 0; to -= from {
		b = append(b, 0xb0, byte(from), byte(from>>8))
	}
	return string(b)
}

// A chain that is longer than any of git's is refused, and one that is as long
// is not.
func TestChains(t *testing.T) {
	for _, n := range []int{maxChain, maxChain + 1} {
		const same = "\x03\x03\x90\x03"
		blob := object{"\x33", "abc"}
		first := changeOf(same, blob)
		objects, next := []object{blob, first}, changeOf(same, first)
		for range n - 1 {
			objects = append(objects, next)
		}
		dir, f := received(t, hostile(uint32(n+1), objects...))
		err := Index(t.Context(), f, 40, noLimits)
		if (err == nil) != (n <= maxChain) {
			t.Fatalf("%d: %v", n, err)
		}
		if err != nil {
			continue
		}
		s, err := Open(dir, 40, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		o, err := s.Open("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(o); string(b) != "abc" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	}
}

func TestIndexEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, f := received(t, hostile(1, object{"\x33", "abc"}))
	if err := Index(ctx, f, 40, noLimits); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A damaged index, or one of another pack, gives errors.
func TestDamagedIndex(t *testing.T) {
	dir, f := received(t, hostile(2, object{"\x33", "abc"}, changeOf("\x03\x06\x90\x03\x03def", object{"\x33", "abc"})))
	if err := Index(t.Context(), f, 40, noLimits); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(dir + "/pack/*.idx")
	good, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(good); at += 3 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x81
		if err := os.WriteFile(names[0], bad, 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, 40, t.TempDir())
		if err != nil {
			continue
		}
		for _, id := range []string{"f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f", "d96dc95707c20a371b14928ee42071f00e00b645"} {
			if o, err := s.Open(id); err == nil {
				io.Copy(io.Discard, o)
				o.Close()
			}
			s.Size(id)
			s.Find(id[:2])
		}
		s.Close()
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(hostile(2, object{"\x33", "abc"}, changeOf("\x03\x06\x90\x03\x03def", object{"\x33", "abc"})))
	f.Add(hostile(2, object{"\x33", "abc"}, object{"\x74" + strings.Repeat("x", 20), "\x03\x03\x90\x03"}))
	f.Add([]byte(run(f, history(f, "sha1"), "HEAD~4\n", "git", "pack-objects", "-q", "--revs", "--stdout")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 24 { // the checksum would stop all but the seeds
			sum := sha1.Sum(b[:len(b)-20])
			copy(b[len(b)-20:], sum[:])
		}
		dir, file := received(t, b)
		if Index(t.Context(), file, 40, Limits{Object: 1 << 20, Total: 4 << 20}) != nil {
			return
		}
		s, err := Open(dir, 40, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range 256 {
			ids, err := s.Find(fmt.Sprintf("%02x", i))
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				o, err := s.Open(id)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, o); err != nil || n != o.Size {
					t.Fatalf("%s: %d bytes, want %d, %v", id, n, o.Size, err)
				}
				o.Close()
			}
		}
	})
}
