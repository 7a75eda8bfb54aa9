package cargobuild

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock/cargo"
	"caisson/prefetch/view"

	"github.com/BurntSushi/toml"
)

const alt = "sparse+https://crates.example.org/index/"

func TestLocalRegistry(t *testing.T) {
	one, two := makeCrate(t, cargo.CratesIO, "abc", "1.0.0", "", ""), makeCrate(t, cargo.CratesIO, "abc", "1.1.0", "", "")
	other := makeCrate(t, alt, "x", "0.1.0", "", "")
	one.Target = "/store/one"
	dir := filepath.Join(t.TempDir(), "registries")
	if err := LocalRegistry(dir, []File{two, other, one}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(dir + "/crates-io/abc-1.0.0.crate"); err != nil || got != "/store/one" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := os.Readlink(dir + "/crates-io/abc-1.1.0.crate"); err != nil || got != two.Path {
		t.Errorf("got %q, %v, want %q", got, err, two.Path)
	}
	index, err := os.ReadFile(dir + "/crates-io/index/3/a/abc")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(index), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], `"vers":"1.0.0"`) || !strings.Contains(lines[1], `"vers":"1.1.0"`) || lines[2] != "" {
		t.Errorf("index %q", index)
	}
	if _, err := os.Stat(filepath.Join(dir, view.Registry(alt), "index/1/x")); err != nil {
		t.Error(err)
	}

	// The same input in another order is the same registry.
	again := filepath.Join(t.TempDir(), "registries")
	if err := LocalRegistry(again, []File{one, two, other}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(again + "/crates-io/index/3/a/abc"); err != nil || string(b) != string(index) {
		t.Errorf("got %q, %v, want %q", b, err, index)
	}

	if err := LocalRegistry(dir, []File{one}); err == nil {
		t.Error("a registry was laid out over another")
	}
	one.Crate.Checksum = strings.Repeat("0", 64)
	if err := LocalRegistry(t.TempDir(), []File{one}); err == nil || !strings.Contains(err.Error(), "abc-1.0.0.crate") {
		t.Errorf("a crate with another checksum: %v", err)
	}
	empty := t.TempDir()
	if err := LocalRegistry(empty, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(empty + "/crates-io/index"); err != nil || !info.IsDir() {
		t.Errorf("no index for no crates: %v", err)
	}
}

func TestConfig(t *testing.T) {
	j := Job{Source: `/src/a "b"\c`, Tmp: "/scratch"}
	b := Config("/in/registries", j, &cargo.Lock{Crates: []cargo.Crate{{Source: alt}, {Source: cargo.CratesIO}, {Source: alt}}})
	var got struct {
		Source map[string]map[string]string
		Build  struct {
			Incremental bool
			Rustflags   []string
		}
		Net struct{ Offline bool }
	}
	if _, err := toml.Decode(string(b), &got); err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	name := view.Registry(alt)
	for _, tt := range []struct{ source, key, want string }{
		{"crates-io", "replace-with", "caisson-crates-io"},
		{"caisson-crates-io", "local-registry", "/in/registries/crates-io"},
		{name, "registry", alt},
		{name, "replace-with", "caisson-" + name},
		{"caisson-" + name, "local-registry", "/in/registries/" + name},
	} {
		if got := got.Source[tt.source][tt.key]; got != tt.want {
			t.Errorf("source %s: %s: got %q, want %q", tt.source, tt.key, got, tt.want)
		}
	}
	if len(got.Source) != 4 || !got.Net.Offline {
		t.Errorf("got %+v", got)
	}
	if !slices.Contains(got.Build.Rustflags, `--remap-path-prefix=/src/a "b"\c=/source`) {
		t.Errorf("rustflags %q", got.Build.Rustflags)
	}
}

func TestJob(t *testing.T) {
	j := Job{Config: "/in/config.toml", Source: "/src", Bin: "guest", Features: []string{"a", "b"}, Epoch: 17}
	want := "/usr/bin/cargo build --config /in/config.toml --manifest-path /src/Cargo.toml --target-dir /tmp/cargo-target " +
		"--release --locked --offline --bin guest --features a,b"
	if got := strings.Join(j.Args(), " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := j.Program(), "/tmp/cargo-target/release/guest"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	j.Cargo, j.Tmp = "/opt/rust/bin/cargo", "/scratch"
	for _, want := range []string{
		"PATH=/opt/rust/bin:/usr/bin:/bin", "CARGO_HOME=/scratch/cargo-home", "CARGO_INCREMENTAL=0",
		"SOURCE_DATE_EPOCH=17", "CARGO_NET_OFFLINE=true",
	} {
		if !slices.Contains(j.Env(), want) {
			t.Errorf("no %s in %q", want, j.Env())
		}
	}
}

func TestLinker(t *testing.T) {
	for _, tt := range []struct {
		linker string
		want   bool
	}{{"", false}, {"gcc", true}} {
		env := Job{Linker: tt.linker}.Env()
		for _, kv := range []string{"CC=gcc", "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc"} {
			if got := slices.Contains(env, kv); got != tt.want {
				t.Errorf("linker %q: environment has %s: got %v, want %v", tt.linker, kv, got, tt.want)
			}
		}
	}
}
