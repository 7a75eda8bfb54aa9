package view

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/prefetch/cas"
)

// cargoForms is a program whose crates depend on others in every way that an
// index line has words for, and their Cargo.lock's dependencies.
func cargoForms(t *testing.T, s *cas.Store) ([]lock.Input, map[string][]string) {
	t.Helper()
	body := func(text string) string { return "pub fn name() -> String { " + text + " }\n" }
	return []lock.Input{
		crate(t, s, cargo.CratesIO, "forms", "2.0.0+zstd.1.5.7",
			"build = \"make.rs\"\nlinks = \"z\"\n[features]\ndefault = [\"loud\"]\nloud = []\nextra = [\"dep:optional\", \"weak?/more\"]\n"+
				"[dependencies.optional]\nversion = \"1\"\noptional = true\n[dependencies.weak]\nversion = \"1\"\noptional = true\n"+
				"[dependencies.alias]\nversion = \"0.3\"\npackage = \"Real_name\"\n"+
				"[target.'cfg(unix)'.dependencies.unixy]\nversion = \"1\"\ndefault-features = false\nfeatures = [\"some\"]\n"+
				"[target.'cfg(windows)'.dependencies.unixy]\nversion = \"1\"\n[build-dependencies.helper]\nversion = \"=1.0.0-rc.1\"\n[dev-dependencies.nowhere]\nversion = \"9\"\n",
			body("format!(\"{} {} {} {}\", alias::name(), unixy::name(), cfg!(feature = \"loud\"), env!(\"HELPED\"))")+
				"#[cfg(feature = \"extra\")] pub use optional::name as optional_name;\n"),
		crate(t, s, cargo.CratesIO, "helper", "1.0.0-rc.1", "", body("\"built\".to_string()")),
		crate(t, s, cargo.CratesIO, "optional", "1.0.5", "", body("\"optional\".to_string()")),
		crate(t, s, cargo.CratesIO, "Real_name", "0.3.1", "", body("\"renamed\".to_string()")),
		crate(t, s, cargo.CratesIO, "unixy", "1.0.0", "[features]\ndefault = [\"wrong\"]\nwrong = []\nsome = []\n", body("format!(\"{} {}\", cfg!(feature = \"some\"), cfg!(feature = \"wrong\"))")),
		crate(t, s, cargo.CratesIO, "weak", "1.0.0", "[features]\nmore = []\n", ""),
		crate(t, s, alt, "unixy", "1.0.0", "", body("\"another registry\".to_string()")),
	}, map[string][]string{"forms": {"Real_name", "helper", "optional", "unixy 1.0.0 (" + cargo.CratesIO + ")", "weak"}}
}

// TestCargoForms builds such a program offline and without changing its lock.
func TestCargoForms(t *testing.T) {
	cargoTool := realCargo(t)
	s := newStore(t)
	inputs, deps := cargoForms(t, s)
	source := t.TempDir()
	deps["app"] = []string{"forms", "unixy 1.0.0 (" + alt + ")"}
	for name, content := range map[string]string{
		"Cargo.toml": "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\n" +
			"forms = { version = \"2\", features = [\"extra\"] }\nunixy = { version = \"1\", registry = \"corp\" }\n",
		".cargo/config.toml": "[registries.corp]\nindex = \"" + alt + "\"\n",
		"Cargo.lock":         cargoLock(inputs, deps),
		"src/main.rs":        "fn main() { println!(\"{} {} {}\", forms::name(), forms::optional_name(), unixy::name()); }\n",
	} {
		name = filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "view")
	if _, err := cargoTree(t, s, &lock.Lock{Inputs: inputs}, dir).Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, source, []string{"CARGO_HOME=" + t.TempDir(), "PATH=" + filepath.Dir(cargoTool) + ":" + os.Getenv("PATH")},
		append(offline(t), cargoTool, "run", "--quiet", "--frozen", "--config", dir+"/config.toml", "--target-dir", t.TempDir())...)
	if want := "renamed true false true built optional another registry\n"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

// cargoLock is the Cargo.lock of a program called app. What the crates depend
// on is by their names.
func cargoLock(crates []lock.Input, deps map[string][]string) string {
	text := "version = 3\n"
	add := func(name, version, more string) {
		text += "\n[[package]]\nname = \"" + name + "\"\nversion = \"" + version + "\"\n" + more
		if d := slices.Sorted(slices.Values(deps[name])); len(d) > 0 {
			text += "dependencies = [\n \"" + strings.Join(d, "\",\n \"") + "\",\n]\n"
		}
	}
	crates = slices.SortedFunc(slices.Values(crates), func(a, b lock.Input) int { return strings.Compare(a.URL, b.URL) })
	add("app", "0.1.0", "")
	for _, in := range crates {
		name, version, _ := strings.Cut(in.URL, "/")
		add(name, version, "source = \""+in.Registry+"\"\nchecksum = \""+in.SHA256.Hex()+"\"\n")
	}
	return text
}
