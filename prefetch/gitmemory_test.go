package prefetch

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// packBuilder writes a pack of whole objects and changes, without git, which
// takes long for large ones.
type packBuilder struct {
	b bytes.Buffer
	n uint32
}

// object writes an object and returns its id.
func (p *packBuilder) object(typ byte, name string, size int64, content io.Reader) string {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", name, size)
	p.entry(typ, size, io.TeeReader(content, h))
	return hex.EncodeToString(h.Sum(nil))
}

// entry writes what is deflated, after its type and size.
func (p *packBuilder) entry(typ byte, size int64, content io.Reader, more ...byte) {
	head := []byte{typ<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		head[len(head)-1] |= 0x80
		head = append(head, byte(size&0x7f))
	}
	p.b.Write(append(head, more...))
	w, _ := zlib.NewWriterLevel(&p.b, zlib.BestSpeed)
	io.Copy(w, content)
	w.Close()
	p.n++
}

// pack is the whole pack.
func (p *packBuilder) pack() []byte {
	b := append(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), p.n), p.b.Bytes()...)
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

// largePack has a commit with a file of zeros of so many bytes, and another
// that is a change of it. It returns the commit's id.
func largePack(size int64) (pack []byte, commit string) {
	p := new(packBuilder)
	a := p.object(3, "blob", size, io.LimitReader(zeros{}, size))
	base, _ := hex.DecodeString(a)
	change := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(size)), uint64(size+1))
	for at := int64(0); at < size; at += 0xffffff {
		n := min(size-at, 0xffffff)
		change = append(change, 0xff, byte(at), byte(at>>8), byte(at>>16), byte(at>>24), byte(n), byte(n>>8), byte(n>>16))
	}
	change = append(change, 1, 'x')
	p.entry(7, int64(len(change)), bytes.NewReader(change), base...)
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size+1)
	io.CopyN(h, zeros{}, size)
	io.WriteString(h, "x")
	tree := "100644 a\x00" + string(base) + "100644 b\x00" + string(h.Sum(nil))
	id := p.object(2, "tree", int64(len(tree)), strings.NewReader(tree))
	text := "tree " + id + "\nauthor A <a@b> 1700000000 +0000\ncommitter A <a@b> 1700000000 +0000\n\nlarge\n"
	commit = p.object(1, "commit", int64(len(text)), strings.NewReader(text))
	return p.pack(), commit
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// packServer serves one commit by version 2 of git's protocol.
func packServer(t *testing.T, pack []byte, commit string) string {
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Method == http.MethodGet:
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			io.WriteString(w, line("# service=git-upload-pack\n")+"0000"+line("version 2\n")+line("ls-refs\n")+line("fetch=shallow\n")+line("object-format=sha1\n")+"0000")
		case strings.Contains(string(body), "command=ls-refs"):
			io.WriteString(w, line(commit+" refs/heads/main\n")+"0000")
		default:
			io.WriteString(w, line("packfile\n"))
			for rest := pack; len(rest) > 0; {
				n := min(len(rest), 65515)
				io.WriteString(w, line("\x01"+string(rest[:n])))
				rest = rest[n:]
			}
			io.WriteString(w, "0000")
		}
	}))
}

// fetchGitAlone is a process that does nothing but fetch a repository, and says
// how much memory it has had at most: what its parent is told of that includes
// the parent's own, from before the program was replaced.
func fetchGitAlone(dir, url string) int {
	cfg := quick()
	cfg.MaxSize = 1 << 30
	s, err := cas.Open(dir)
	if err == nil {
		var c *Client
		if c, err = NewClient(cfg); err == nil {
			_, err = NewFetcher(s, c, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindGit, URL: url, Ref: "main"})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Print(strings.TrimSpace(rest))
		}
	}
	return 0
}

// TestGitMemory fetches files that are larger than the memory it may take, one
// of them a change of the other.
func TestGitMemory(t *testing.T) {
	const size, most = 192 << 20, 150 << 20
	pack, commit := largePack(size)
	dir := filepath.Join(t.TempDir(), "store")
	out, err := child(dir + " " + packServer(t, pack, commit) + " git").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var had int64
	if _, err := fmt.Sscanf(string(out), "%d kB", &had); err != nil {
		t.Skipf("this system does not tell: %q", out)
	}
	t.Logf("%d MiB", had>>10)
	if had<<10 > most {
		t.Errorf("%d MiB, want at most %d", had>>10, most>>20)
	}
}
