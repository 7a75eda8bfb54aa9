package prefetch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
)

func TestParseGoProxy(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"https://proxy.golang.org,direct", "https://proxy.golang.org, direct"},
		{"https://a.example/p/|file:///srv/go , b.example,off,https://never.example", "https://a.example/p| file:///srv/go, https://b.example, off"},
		{",,https://a.example,", "https://a.example,"},
		{"off", "off"},
		{"", "error"},
		{"nonsense", "error"},
		{"ftp://a.example", "error"},
	} {
		places, err := parseGoProxy(c.in)
		var got []string
		for _, p := range places {
			switch {
			case p.direct:
				got = append(got, "direct")
			case p.err == errProxyOff:
				got = append(got, "off")
			case p.any:
				got = append(got, p.url+"|")
			default:
				got = append(got, p.url+",")
			}
		}
		if err != nil {
			got = []string{"error"}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: got %q, want %q", c.in, strings.Join(got, " "), c.want)
		}
	}
}

func TestSumDBAddress(t *testing.T) {
	for _, c := range []struct{ in, name, direct string }{
		{"sum.golang.org", "sum.golang.org", "https://sum.golang.org"},
		{"sum.golang.google.cn", "sum.golang.org", "https://sum.golang.google.cn"},
		{"sum.example+1a2b+AAAA https://mirror.example/sum/", "sum.example", "https://mirror.example/sum"},
		{"off", "", ""},
		{"a b c", "", ""},
	} {
		name, direct, err := sumDBAddress(c.in)
		if (err != nil) != (c.name == "") || name != c.name || direct != c.direct {
			t.Errorf("%q: got %q, %q, %v", c.in, name, direct, err)
		}
	}
}

// fetcher makes a Fetcher and its store.
func fetcher(t testing.TB, cfg Config) *Fetcher {
	t.Helper()
	return NewFetcher(newStore(t), newClient(t, cfg), cfg)
}

func TestGoProxies(t *testing.T) {
	const path = "github.com/!burnt!sushi/toml/@v/v1.6.0.mod"
	has := serve(t, newFiles(map[string]string{"/" + path: "module x\n"}))
	not := serve(t, newFiles(nil))
	broken := serve(t, newFiles(map[string]string{"/" + path: "403"}))
	dir := t.TempDir()
	local := filepath.Join(dir, filepath.FromSlash(path))
	os.MkdirAll(filepath.Dir(local), 0o755)
	os.WriteFile(local, []byte("module x\n"), 0o644)

	for _, c := range []struct{ proxy, err string }{
		{has, ""},
		{not + "," + has, ""},
		{"file://" + dir, ""},
		{"file://" + dir + "/none," + has, ""},
		{broken + "|" + has, ""},
		{broken + "," + has, "403 Forbidden"},
		{not, "404 Not Found"},
		{"off", "no module may be downloaded"},
		{not + ",off", "no module may be downloaded"},
	} {
		cfg := quick()
		cfg.GoProxy = c.proxy
		b, err := fetcher(t, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindGo, URL: path})
		switch {
		case c.err == "" && (err != nil || b.SHA256 != digest.Of([]byte("module x\n")) || b.Size != 9):
			t.Errorf("%s: got %+v, %v", c.proxy, b, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: got %v, want %s", c.proxy, err, c.err)
		}
		if gone := errors.Is(err, fs.ErrNotExist); gone != strings.HasPrefix(c.proxy, not) && err != nil {
			t.Errorf("%s: is not there: %v", c.proxy, gone)
		}
	}
	cfg := quick()
	cfg.GoProxy, cfg.GoNoProxy = has, "*.example,github.com/BurntSushi"
	f := fetcher(t, cfg)
	// How a module comes from its source is TestGoDirect's.
	for _, c := range []struct {
		proxy, noProxy string
		want           []string
	}{
		{has, cfg.GoNoProxy, []string{"direct"}}, {"direct", "", []string{"direct"}}, {"direct," + has, "", []string{"direct"}},
		{has + "," + not + "|direct", "", []string{has + "/" + path, not + "/" + path, "direct"}},
	} {
		f.cfg.GoProxy, f.cfg.GoNoProxy = c.proxy, c.noProxy
		places, err := f.goModule(path)
		var got []string
		for _, p := range places {
			if p.get != nil {
				p.url = "direct"
			}
			got = append(got, p.url)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s without %s: got %q, %v, want %q", c.proxy, c.noProxy, got, err, c.want)
		}
	}
	f.cfg.GoProxy, f.cfg.GoNoProxy = has, ""
	for _, bad := range []string{"", "x", "a/../@v/b", "/@v/../../x", "github.com/!!a/@v/v1.0.0.mod"} {
		if _, err := f.Fetch(context.Background(), lock.Want{Kind: lock.KindGo, URL: bad}); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

func TestSumDB(t *testing.T) {
	const path = "/lookup/golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64"
	direct := newFiles(map[string]string{path: "direct"})
	mirror := newFiles(map[string]string{"/sumdb/sum.example" + path: "mirrored"})
	at, proxy, not := serve(t, direct), serve(t, mirror), serve(t, newFiles(nil))
	for _, c := range []struct{ proxy, want string }{
		{proxy + ",direct", "mirrored"}, {not + "," + proxy, "mirrored"}, {not + ",direct", "direct"},
		{"direct", "direct"}, {"off", ""},
	} {
		cfg := quick()
		cfg.GoProxy, cfg.GoSumDB = c.proxy, "sum.example+00000000+AAAA "+at
		b, err := fetcher(t, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindSumDB, URL: path})
		if (err != nil) != (c.want == "") || err == nil && b.SHA256 != digest.Of([]byte(c.want)) {
			t.Errorf("%s: got %+v, %v", c.proxy, b, err)
		}
	}
}

// write makes files in a folder.
func write(t testing.TB, dir string, at map[string]string) {
	t.Helper()
	for name, content := range at {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCargoConfig(t *testing.T) {
	const cratesIO = "registry+https://github.com/rust-lang/crates.io-index"
	for _, c := range []struct {
		name            string
		files           map[string]string
		registry        string
		index, local    string
		err             string
		environmentName string
	}{
		{name: "nothing", registry: cratesIO, index: "https://index.crates.io/"},
		{name: "sparse crates.io", registry: "sparse+https://index.crates.io/", index: "https://index.crates.io/"},
		{name: "mirror", registry: cratesIO, index: "https://mirror.example/index/", files: map[string]string{
			"home/config.toml": "[source.crates-io]\nreplace-with = 'm'\n[source.m]\nregistry = 'sparse+https://mirror.example/index/'\n"}},
		{name: "mirror among registries", registry: cratesIO, index: "https://mirror.example/index/", files: map[string]string{
			"home/config.toml": "[source.crates-io]\nreplace-with = 'm'\n[registries.m]\nindex = 'sparse+https://mirror.example/index'\n"}},
		{name: "the nearest counts", registry: cratesIO, index: "https://near.example/", files: map[string]string{
			"home/config.toml":             "[source.crates-io]\nreplace-with = 'm'\n[source.m]\nregistry = 'sparse+https://far.example/'\n",
			"a/.cargo/config.toml":         "[source.m]\nregistry = 'sparse+https://middle.example/'\n",
			"a/project/.cargo/config":      "[source.m]\nregistry = 'sparse+https://near.example/'\n",
			"a/project/.cargo/config.toml": "[source.m]\nregistry = 'sparse+https://unread.example/'\n"}},
		{name: "local registry", registry: cratesIO, local: "DIR/a/project/vendor", files: map[string]string{
			"a/project/.cargo/config.toml": "[source.crates-io]\nreplace-with = 'l'\n[source.l]\nlocal-registry = 'vendor'\n"}},
		{name: "another registry", registry: "sparse+https://x.example/i/", index: "https://x.example/i/"},
		{name: "another registry's mirror", registry: "registry+https://x.example/git", index: "https://m.example/", files: map[string]string{
			"home/config.toml": "[source.x]\nregistry = 'https://x.example/git'\nreplace-with = 'm'\n[source.m]\nregistry = 'sparse+https://m.example'\n"}},
		{name: "environment", registry: cratesIO, index: "https://env.example/", environmentName: "my_mirror", files: map[string]string{
			"home/config.toml": "[source.crates-io]\nreplace-with = 'my-mirror'\n[registries.my-mirror]\nindex = 'https://x.example/git'\n"}},
		{name: "git index", registry: "registry+https://x.example/git", err: "git index"},
		{name: "git's form", registry: "git+https://x.example/git", err: "want registry+URL"},
		{name: "circle", registry: cratesIO, err: "circle", files: map[string]string{
			"home/config.toml": "[source.crates-io]\nreplace-with = 'a'\n[source.a]\nreplace-with = 'crates-io'\n"}},
		{name: "vendored", registry: cratesIO, err: "no .crate files", files: map[string]string{
			"home/config.toml": "[source.crates-io]\nreplace-with = 'v'\n[source.v]\ndirectory = 'vendor'\n"}},
		{name: "unknown", registry: cratesIO, err: "not configured", files: map[string]string{
			"home/config.toml": "[source.crates-io]\nreplace-with = 'v'\n"}},
		{name: "no TOML", registry: cratesIO, err: "config.toml", files: map[string]string{"home/config.toml": "[source"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.files)
			index := map[string]string{}
			if c.environmentName != "" {
				index[c.environmentName] = "sparse+https://env.example/"
			}
			conf, err := readCargoConfig(filepath.Join(dir, "a/project"), filepath.Join(dir, "home"), index, nil, CargoHTTP{})
			var at registryAddress
			if err == nil {
				at, err = conf.find(c.registry)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %+v, %v, want %s", at, err, c.err)
				}
				return
			}
			if want := (registryAddress{index: c.index, local: strings.ReplaceAll(c.local, "DIR", dir)}); err != nil || at != want {
				t.Errorf("got %+v, %v, want %+v", at, err, want)
			}
		})
	}
}

func TestCrates(t *testing.T) {
	sum := digest.Of([]byte("a crate"))
	srv := newFiles(nil)
	at := serve(t, srv)
	srv.at = map[string]string{
		"/plain/config.json":             `{"dl": "` + at + `/dl/"}`,
		"/marks/config.json":             `{"dl": "` + at + `/{prefix}/{lowerprefix}/{crate}-{version}/{sha256-checksum}.crate", "api": null}`,
		"/secret/config.json":            `{"dl": "` + at + `/dl", "auth-required": true}`,
		"/none/config.json":              `{}`,
		"/text/config.json":              `hello`,
		"/dl/Serde/1.0.229+x.1/download": "a crate",
		"/Se/rd/se/rd/Serde-1.0.229+x.1/" + sum.Hex() + ".crate": "a crate",
		"/3/a/3/a/abc-1.0.229+x.1/" + sum.Hex() + ".crate":       "a crate",
	}
	for _, c := range []struct{ index, id, err string }{
		{"plain", "Serde/1.0.229+x.1", ""}, {"marks/", "Serde/1.0.229+x.1", ""}, {"marks", "abc/1.0.229+x.1", ""},
		{"plain", "none/1.0.0", "404"}, {"secret", "a/1.0.0", "wants a token"}, {"none", "a/1.0.0", `no "dl"`},
		{"text", "a/1.0.0", "invalid character"}, {"absent", "a/1.0.0", "404"},
		{"plain", "../1.0.0", "want NAME/VERSION"}, {"plain", "a/1.0.0/../..", "want NAME/VERSION"}, {"plain", "a", "want NAME/VERSION"},
	} {
		f := fetcher(t, quick())
		w := lock.Want{Kind: lock.KindCrate, URL: c.id, Registry: "sparse+" + at + "/" + c.index, SHA256: sum}
		b, err := f.Fetch(context.Background(), w)
		switch {
		case c.err == "" && (err != nil || b.SHA256 != sum):
			t.Errorf("%s %s: got %+v, %v", c.index, c.id, b, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s %s: got %v, want %s", c.index, c.id, err, c.err)
		}
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{
		".cargo/config.toml":       "[source.crates-io]\nreplace-with = 'l'\n[source.l]\nlocal-registry = 'crates'\n",
		"crates/serde-1.0.0.crate": "a crate",
	})
	cfg := quick()
	cfg.Dir = dir
	b, err := fetcher(t, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindCrate, URL: "serde/1.0.0", Registry: "registry+" + cratesIOGit, SHA256: sum})
	if err != nil || b.SHA256 != sum {
		t.Errorf("local registry: got %+v, %v", b, err)
	}
	cfg.CratesIO = "sparse+" + at + "/plain/"
	b, err = fetcher(t, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindCrate, URL: "Serde/1.0.229+x.1", Registry: "registry+" + cratesIOGit, SHA256: sum})
	if err != nil || b.SHA256 != sum {
		t.Errorf("another index for crates.io's: got %+v, %v", b, err)
	}
	cfg.CratesIO, cfg.CratesIOToken = "sparse+"+at+"/secret/", "t0ken"
	_, err = fetcher(t, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindCrate, URL: "Serde/1.0.229+x.1", Registry: "registry+" + cratesIOGit, SHA256: sum})
	if err != nil {
		t.Errorf("with a token: %v", err)
	}
}

func TestFetch(t *testing.T) {
	srv := newFiles(map[string]string{"/a": "first"})
	srv.etag = `"1"`
	at := serve(t, srv)
	f := fetcher(t, quick())
	ctx := context.Background()
	fetch := func(w lock.Want, want string, requests int64) {
		t.Helper()
		before := srv.n.Load()
		b, err := f.Fetch(ctx, w)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(b.Path)
		if err != nil || string(got) != want || b.SHA256 != digest.Of(got) || b.Size != int64(len(got)) {
			t.Errorf("got %q, %+v, %v, want %q", got, b, err, want)
		}
		if n := srv.n.Load() - before; n != requests {
			t.Errorf("got %d requests, want %d", n, requests)
		}
	}
	plain := lock.Want{Kind: lock.KindRepodata, URL: at + "/a"}
	fixed := plain
	fixed.Immutable = true
	fetch(plain, "first", 1)
	fetch(plain, "first", 1)
	fetch(fixed, "first", 1)
	srv.at["/a"], srv.etag = "second", `"2"`
	fetch(fixed, "first", 0)
	fetch(plain, "second", 1)
	known := plain
	known.SHA256 = digest.Of([]byte("second"))
	fetch(known, "second", 0)
	// What is damaged is not used.
	path := f.store.Path(known.SHA256)
	os.Chmod(path, 0o644)
	os.WriteFile(path, []byte("secund"), 0o644)
	fetch(known, "second", 1)
	path = f.store.Path(digest.Of([]byte("first")))
	os.Chmod(path, 0o644)
	os.WriteFile(path, nil, 0o644)
	fetch(fixed, "second", 1)

	if _, err := f.Fetch(ctx, lock.Want{Kind: lock.KindRepodata, URL: at + "/none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := f.Fetch(ctx, lock.Want{Kind: lock.KindRepodata, URL: "repodata/repomd.xml"}); err == nil {
		t.Error("a relative address is no error")
	}
	if _, err := f.Fetch(ctx, lock.Want{Kind: lock.KindFile, URL: "relative"}); err == nil {
		t.Error("a path without a project is no error")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"keys/KEY 1": "a key"})
	cfg := quick()
	cfg.Dir = dir
	b, err := fetcher(t, cfg).Fetch(ctx, lock.Want{Kind: lock.KindKey, URL: "keys/KEY 1"})
	if err != nil || b.SHA256 != digest.Of([]byte("a key")) {
		t.Errorf("got %+v, %v", b, err)
	}
}

func TestEnvConfig(t *testing.T) {
	home := t.TempDir()
	write(t, home, map[string]string{"goenv": "# comment\nGOPROXY=https://file.example\nGOPRIVATE=corp.example/*\nGOSUMDB=off\n"})
	for k, v := range map[string]string{
		"HOME": home, "GOENV": filepath.Join(home, "goenv"), "GOPROXY": "", "GONOPROXY": "", "GOPRIVATE": "", "GOSUMDB": "sum.example+1+A",
		"CARGO_HOME": "", "CARGO_REGISTRIES_MY_MIRROR_INDEX": "sparse+https://env.example/", "CARGO_REGISTRIES_MY_MIRROR_TOKEN": "t", "GONOSUMDB": "", "NETRC": "", "HTTPS_PROXY": "http://proxy.example:3128",
	} {
		t.Setenv(k, v)
	}
	c, err := EnvConfig("1.2", "some/where")
	if err != nil {
		t.Fatal(err)
	}
	wd, _ := os.Getwd()
	for _, v := range []struct{ name, got, want string }{
		{"GoProxy", c.GoProxy, "https://file.example"}, {"GoNoProxy", c.GoNoProxy, "corp.example/*"}, {"GoSumDB", c.GoSumDB, "sum.example+1+A"},
		{"CargoHome", c.CargoHome, filepath.Join(home, ".cargo")}, {"CargoIndex", c.CargoIndex["my_mirror"], "sparse+https://env.example/"}, {"CargoTokens", c.CargoTokens["my_mirror"], "t"},
		{"GoNoSumDB", c.GoNoSumDB, "corp.example/*"},
		{"Netrc", c.Netrc, filepath.Join(home, ".netrc")}, {"Dir", c.Dir, filepath.Join(wd, "some/where")}, {"Version", c.Version, "1.2"},
	} {
		if v.got != v.want {
			t.Errorf("%s: got %q, want %q", v.name, v.got, v.want)
		}
	}
	t.Setenv("GOSUMDB", "off")
	if c, err = EnvConfig("1.2", "."); err != nil || c.GoNoSumDB != "*" {
		t.Errorf("GOSUMDB=off: got %q, %v", c.GoNoSumDB, err)
	}
	t.Setenv("GOENV", "off")
	if c, err = EnvConfig("1.2", "."); err != nil || c.GoProxy != "" {
		t.Errorf("GOENV=off: got %q, %v", c.GoProxy, err)
	}
}
