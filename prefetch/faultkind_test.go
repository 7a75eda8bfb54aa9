package prefetch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
)

// everyKind is a world with an input of each kind that comes by HTTP, by the
// path that it is served at. (Of git it is the commit's objects that are
// fetched: see TestFillGit.)
func everyKind(t *testing.T) (*world, map[string]*lock.Input) {
	w := newWorld(t)
	const tc = "golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64"
	tool := zipEntries(t, [2]string{tc + "/bin/go", "the go command"})
	w.addServed("/go/golang.org/toolchain/@v/v0.0.1-go1.26.0.linux-amd64.zip", lock.Input{Kind: lock.KindToolchain, Name: tc + ".zip", URL: "golang.org/toolchain/@v/v0.0.1-go1.26.0.linux-amd64.zip",
		Go: &lock.Go{Module: "golang.org/toolchain", Version: "v0.0.1-go1.26.0.linux-amd64", H1: zipH1(tool)}}, tool)
	layer := "a layer"
	w.srv.at["/v2/"] = "{}"
	sum := digest.Of([]byte(layer)).String()
	w.addServed("/v2/team/image/blobs/"+sum, lock.Input{Kind: lock.KindOCI, Name: "image/layer-0",
		URL: "oci://" + strings.TrimPrefix(w.url, "http://") + "/team/image/blobs/" + sum, OCI: &lock.OCI{Role: lock.RoleLayer}}, layer)
	served := make(map[string]*lock.Input)
	for path, content := range w.srv.at {
		for i := range w.lock.Inputs {
			if in := &w.lock.Inputs[i]; in.SHA256 == digest.Of([]byte(content)) {
				served[path] = in
			}
		}
	}
	return w, served
}

// Whatever kind a file is of: other bytes than the lock's are said to be
// others, and are not in the store; all else is.
func TestEveryKindIsProved(t *testing.T) {
	w, served := everyKind(t)
	kinds := make(map[string]bool)
	if _, err := fill(t, w, newStore(t)); err != nil {
		t.Fatal(err)
	}
	for path, in := range served {
		kinds[in.Kind] = true
		right := w.srv.at[path]
		for lie, content := range map[string]string{
			"a flipped bit": right[:len(right)/2] + string(right[len(right)/2]^1) + right[len(right)/2+1:],
			"a byte more":   right + "\n",
			"a byte less":   right[:len(right)-1],
			"a web page":    webpage,
			"nothing":       "",
		} {
			w.srv.at[path] = content
			s := newStore(t)
			w.cfg.Retries = -1
			stats, err := fill(t, w, s)
			want := in.Kind + " " + in.Name + ": "
			if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") ||
				!errors.Is(err, lock.ErrMismatch) && !isA[*SizeError](err) {
				t.Errorf("%s, %s: got %v", in.Name, lie, err)
			}
			if s.Has(in.SHA256) || stats.Fetched+stats.Packed != len(w.lock.Inputs)-1 {
				t.Errorf("%s, %s: got %+v", in.Name, lie, stats)
			}
			clean(t, s)
		}
		w.srv.at[path] = right
	}
	for _, kind := range []string{lock.KindRPM, lock.KindRepodata, lock.KindGo, lock.KindToolchain, lock.KindCrate, lock.KindFile, lock.KindOCI} {
		if !kinds[kind] {
			t.Errorf("no input of kind %s was tried", kind)
		}
	}
}

// The same in a store that somebody else has filled, or a disk has damaged:
// found when it is hashed, and mended by the run that finds it.
func TestEveryKindIsMended(t *testing.T) {
	w, served := everyKind(t)
	s := newStore(t)
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	for _, in := range served {
		size, _ := s.Size(in.SHA256)
		break1(t, s, in.SHA256, strings.Repeat("x", int(size)))
	}
	opts := w.options()
	opts.Verify = true
	stats, err := Fill(t.Context(), w.lock, s, opts)
	if err != nil || stats.Repaired != len(served) || stats.Fetched != len(served) {
		t.Errorf("got %+v, %v, want %d repaired", stats, err, len(served))
	}
	clean(t, s)
}

// A package that is signed and whole, and not the one that the lock means.
func TestOtherPackage(t *testing.T) {
	for what, change := range map[string]func(*lock.RPM){
		"name": func(r *lock.RPM) { r.Name = "hallo" }, "epoch": func(r *lock.RPM) { r.Epoch = 0 }, "version": func(r *lock.RPM) { r.Version = "1.0.0" },
		"release": func(r *lock.RPM) { r.Release = "3.1" }, "arch": func(r *lock.RPM) { r.Arch = "x86_64" }, "source": func(r *lock.RPM) { r.Arch = "src" },
	} {
		for _, signed := range []bool{true, false} {
			w, s := newWorld(t), newStore(t)
			in := w.find(t, "hello-2:1.0-3.noarch")
			in.RPM.Signed = signed
			change(in.RPM)
			_, err := fill(t, w, s)
			if err == nil || !strings.Contains(err.Error(), "it is another package: got hello-2:1.0-3.noarch, want ") || s.Has(in.SHA256) {
				t.Errorf("another %s: got %v", what, err)
			}
			clean(t, s)
		}
	}
}

// Packages that the lock has as they are, and that are none.
func TestBadPackages(t *testing.T) {
	s := newStore(t)
	w := newWorld(t)
	good := makeRPM(t, "hello", w.key)
	at := strings.Index(good[100:], "\x8e\xad\xe8\x01") + 100 // the main header
	sizes := func(entries, data uint32) string {
		b := []byte(good)
		binary.BigEndian.PutUint32(b[at+8:], entries)
		binary.BigEndian.PutUint32(b[at+12:], data)
		return string(b)
	}
	flip := func(n int) string { return good[:n] + string(good[n]^1) + good[n+1:] }
	for name, c := range map[string]struct{ content, err string }{
		"a header of 4 GiB":     {sizes(10, 0xffffffff), "4294967295 bytes of data, want at most 268435456"},
		"a header of 256 MiB":   {sizes(10, 256<<20), "the file is truncated"},
		"4 billion entries":     {sizes(0xffffffff, 100), "4294967295 entries, want 1 to 65535"},
		"no entries":            {sizes(0, 100), "0 entries"},
		"a signature of 4 GiB":  {good[:96+12] + "\xff\xff\xff\xff" + good[96+16:], "4294967295 bytes of data, want at most 16777216"},
		"cut in the lead":       {good[:50], "the file is truncated"},
		"cut in the signature":  {good[:200], "the file is truncated"},
		"cut in the header":     {good[:at+100], "the file is truncated"},
		"cut in the payload":    {good[:len(good)-1], "signature: bad signature"},
		"longer":                {good + "x", "signature: bad signature"},
		"a flipped bit at end":  {flip(len(good) - 1), "signature: bad signature"},
		"a flipped bit in name": {good[:at] + strings.Replace(good[at:], "hello", "hellp", 1), "another package"},
		"a flipped bit":         {flip(at + 700), ""},
		"a web page":            {webpage + strings.Repeat(" ", 200), "no RPM: got magic"},
		"nothing but a lead":    {good[:96], "the file is truncated"},
		"unsigned":              {makeRPM(t, "hello", nil), "signature: not signed"},
		"signed by another":     {makeRPM(t, "hello", newSigner(t)), "which is not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			in := w.find(t, "hello-2:1.0-3.noarch")
			replace(w, in, c.content)
			_, err := fill(t, w, s)
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "rpm hello-2:1.0-3.noarch: ") || s.Has(in.SHA256) {
				t.Errorf("got %v, want %s", err, c.err)
			}
			clean(t, s)
		})
	}
}

// A package that nobody has to have signed is still to be whole.
func TestUnsignedPackageIsWhole(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	in := w.find(t, "hello-2:1.0-3.noarch")
	content := makeRPM(t, "hello", nil)
	replace(w, in, content[:len(content)-1])
	in.RPM.Signed = false
	if _, err := fill(t, w, s); err == nil || !strings.Contains(err.Error(), "the package is not what its own digests say") || s.Has(in.SHA256) {
		t.Errorf("got %v", err)
	}
	clean(t, s)
}

// Addresses of a lock that a server or a file system might take for others.
func TestOddAddresses(t *testing.T) {
	for _, name := range []string{"../../../etc/passwd", "a\x00b", "a\nb", `..\..\b`, "/etc/passwd", "//other.example/a", strings.Repeat("a", 5000), "a%2f..%2f..%2fb", "a?b#c", " ", "http:///a", "%zz"} {
		w, s := newWorld(t), newStore(t)
		for _, kind := range []string{lock.KindRPM, lock.KindGo, lock.KindCrate, lock.KindFile, lock.KindRepodata} {
			in := lock.Input{Kind: kind, Name: "odd", URL: name, Repo: "base", SHA256: digest.Of([]byte(hello)), Size: int64(len(hello)), Registry: "sparse+" + w.url + "/crates/"}
			switch kind {
			case lock.KindRPM:
				in.RPM = &lock.RPM{Name: "odd", Version: "1", Release: "1", Arch: "noarch"}
			case lock.KindGo:
				in.Go = &lock.Go{Module: "example.org/odd", Version: "v1.0.0", H1: h1("a", "b")}
			}
			one := *w.lock
			one.Inputs = slices.Concat(w.lock.Inputs[:1], []lock.Input{in})
			_, err := Fill(t.Context(), &one, s, w.options())
			said := fmt.Sprint(err)
			if kind == lock.KindFile {
				said = "" // the operating system's; no lock has such a path (lock.Parse)
			}
			if err == nil || strings.ContainsAny(said, "\x00\n") || s.Has(in.SHA256) {
				t.Errorf("%s %.40q: got %v", kind, name, err)
			}
		}
		clean(t, s)
	}
}
