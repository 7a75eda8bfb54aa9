package prefetch

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/rpmpack"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// when is the time of all that tests make.
var when = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

// signer makes OpenPGP keys and signs with them.
type signer struct {
	entity      *openpgp.Entity
	config      *packet.Config
	public      string // armored
	fingerprint string
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	c := &packet.Config{Time: func() time.Time { return when }, Algorithm: packet.PubKeyAlgoEdDSA}
	e, err := openpgp.NewEntity("Test", "", "test@example.org", c)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, "PGP PUBLIC KEY BLOCK", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return &signer{e, c, b.String(), fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)}
}

func (s *signer) sign(b []byte) ([]byte, error) {
	var out bytes.Buffer
	err := openpgp.DetachSign(&out, s.entity, bytes.NewReader(b), s.config)
	return out.Bytes(), err
}

// makeRPM makes a package; a nil signer does not sign.
func makeRPM(t testing.TB, name string, s *signer) string {
	t.Helper()
	r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: name, Epoch: 2, Version: "1.0", Release: "3", Arch: "noarch", BuildTime: when, Compressor: "gzip"})
	if err != nil {
		t.Fatal(err)
	}
	r.AddFile(rpmpack.RPMFile{Name: "/usr/share/" + name, Body: []byte(strings.Repeat(name, 500)), Mode: 0o644, Owner: "root", Group: "root"})
	if s != nil {
		r.SetPGPSigner(s.sign)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// makeZip makes a module's zip.
func makeZip(t testing.TB, module string, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(module + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// h1 is the hash of one file as go.sum has it.
func h1(name, content string) string { return h1Of(map[string]string{name: content}) }

// h1Of is the hash of files as go.sum has it: written from its definition, not
// with the package that the code uses.
func h1Of(files map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%x  %s\n", sha256.Sum256([]byte(files[name])), name)
	}
	return "h1:" + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// world is a lock, a project and the server that has the lock's inputs.
type world struct {
	srv  *files
	url  string
	dir  string
	lock *lock.Lock
	cfg  Config
	key  *signer
	// trees is what the project's folders pack to.
	trees map[string]string
}

// newWorld has one input of every kind.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{srv: newFiles(make(map[string]string)), dir: t.TempDir(), key: newSigner(t), trees: make(map[string]string)}
	w.url = serve(t, w.srv)
	w.cfg = quick()
	w.cfg.Dir, w.cfg.GoProxy = w.dir, w.url+"/go"
	w.lock = &lock.Lock{Repos: []lock.Repo{{ID: "base", Arch: "x86_64", BaseURL: w.url + "/rpm/", GPGCheck: true, Keys: []string{w.key.fingerprint}}}}

	write(t, w.dir, map[string]string{"keys/KEY": w.key.public})
	w.add(lock.Input{Kind: lock.KindKey, Name: "KEY", URL: "keys/KEY", Fingerprint: w.key.fingerprint}, w.key.public)
	w.addRPM(t, "hello", w.key)
	w.addRPM(t, "world", w.key)
	w.addServed("/rpm/repodata/repomd.xml", lock.Input{Kind: lock.KindRepodata, Name: "base/repomd.xml", URL: "repodata/repomd.xml", Repo: "base"}, "<repomd/>")
	w.addGo(t, "example.org/mod")
	w.srv.at["/crates/config.json"] = `{"dl": "` + w.url + `/crates/dl"}`
	w.addServed("/crates/dl/serde/1.0.0/download", lock.Input{Kind: lock.KindCrate, Name: "serde-1.0.0.crate", URL: "serde/1.0.0", Registry: "sparse+" + w.url + "/crates/"}, makeCrate(t, file("serde-1.0.0/Cargo.toml", "[package]")))
	w.addServed("/files/iso", lock.Input{Kind: lock.KindFile, Name: "an.iso", URL: w.url + "/files/iso"}, strings.Repeat("iso", 10_000))
	w.trees["src"] = "a packed tree"
	w.add(lock.Input{Kind: lock.KindTree, Name: "src", URL: "src"}, w.trees["src"])
	return w
}

func (w *world) add(in lock.Input, content string) *lock.Input {
	in.SHA256, in.Size = digest.Of([]byte(content)), int64(len(content))
	in.For = append(in.For, lock.Use{Arch: "x86_64", Set: "root", By: "test"})
	w.lock.Inputs = append(w.lock.Inputs, in)
	return &w.lock.Inputs[len(w.lock.Inputs)-1]
}

func (w *world) addServed(path string, in lock.Input, content string) *lock.Input {
	w.srv.at[path] = content
	return w.add(in, content)
}

func (w *world) addRPM(t testing.TB, name string, s *signer) *lock.Input {
	nevra := name + "-2:1.0-3.noarch"
	return w.addServed("/rpm/Packages/"+name+".rpm", lock.Input{Kind: lock.KindRPM, Name: nevra, URL: "Packages/" + name + ".rpm", Repo: "base",
		RPM: &lock.RPM{Name: name, Epoch: 2, Version: "1.0", Release: "3", Arch: "noarch", Signed: true}}, makeRPM(t, name, s))
}

// addGo adds a module's zip and go.mod.
func (w *world) addGo(t testing.TB, module string) (mod, zip *lock.Input) {
	gomod := "module " + module + "\n"
	id := module + "@v1.0.0"
	w.addServed("/go/"+module+"/@v/v1.0.0.mod", lock.Input{Kind: lock.KindGo, Name: id + ".mod", URL: module + "/@v/v1.0.0.mod",
		Go: &lock.Go{Module: module, Version: "v1.0.0", H1: h1("go.mod", gomod)}}, gomod)
	w.addServed("/go/"+module+"/@v/v1.0.0.zip", lock.Input{Kind: lock.KindGo, Name: id + ".zip", URL: module + "/@v/v1.0.0.zip",
		Go: &lock.Go{Module: module, Version: "v1.0.0", H1: h1(id+"/go.mod", gomod)}}, makeZip(t, id, map[string]string{"go.mod": gomod}))
	n := len(w.lock.Inputs)
	return &w.lock.Inputs[n-2], &w.lock.Inputs[n-1]
}

// options are Fill's in this world.
func (w *world) options() Options {
	return Options{Config: w.cfg, Tree: func(in *lock.Input) (io.ReadCloser, error) {
		content, ok := w.trees[in.URL]
		if !ok {
			return nil, fmt.Errorf("packing %s: %w", in.URL, errNoFolder)
		}
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

// VerifyAll reads what a store has of a lock's inputs.
func VerifyAll(ctx context.Context, l *lock.Lock, s *cas.Store, _ string) error {
	files := make([]Stored, len(l.Inputs))
	for i := range l.Inputs {
		in := &l.Inputs[i]
		files[i] = Stored{in.SHA256, in.Size, in.Kind + " " + in.Name}
	}
	bad, err := Verify(ctx, s, files, nil)
	return errors.Join(append(bad, err)...)
}

// find returns an input by name.
func (w *world) find(t testing.TB, name string) *lock.Input {
	t.Helper()
	for i := range w.lock.Inputs {
		if w.lock.Inputs[i].Name == name {
			return &w.lock.Inputs[i]
		}
	}
	t.Fatalf("no input %s", name)
	return nil
}

// child is a process that fills a store, as TestMain says.
func child(what string, env ...string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(append(os.Environ(), childEnv+"="+what), env...)
	return c
}
