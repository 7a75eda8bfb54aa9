package rpmmd

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// data is the folder of shared test data.
const data = "../../../shared/data"

// open returns the one file that matches, or skips the test where the shared
// data is absent.
func open(t testing.TB, pattern string) *os.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(data, pattern))
	if err != nil || len(names) != 1 {
		t.Skipf("no shared data %s", pattern)
	}
	f, err := os.Open(names[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// onePackage is a package with everything that is read, and things that are not.
const onePackage = `<package type="rpm">
  <name>a&amp;b</name><arch>x86_64</arch><version epoch="1" ver="2~rc1" rel="3.el9"/>
  <checksum type="sha256" pkgid="YES">` + zeros + `</checksum>
  <summary>text with &lt;entities&gt; <![CDATA[and <more>]]></summary><!-- a comment -->
  <time file="5" build="7"/><size package="10" installed="20" archive="30"/>
  <location xml:base="https://example.com/" href="Packages/a&#43;b-2.rpm"/>
  <format><rpm:license>x</rpm:license><rpm:sourcerpm>s.src.rpm</rpm:sourcerpm>
  <rpm:provides><rpm:entry name="p"/><rpm:entry name='q' flags="EQ" epoch="0" ver="1" rel="2"/></rpm:provides>
  <rpm:requires><rpm:entry name="(x >= 1 or y)" pre="1"/><rpm:entry name="z" flags="GE" ver="1"></rpm:entry></rpm:requires>
  <rpm:conflicts><rpm:entry name="c" flags="LT" epoch="3" ver="4"/></rpm:conflicts>
  <rpm:obsoletes><rpm:entry name="o" flags="LE" ver="4"/></rpm:obsoletes>
  <rpm:recommends><rpm:entry name="r"/></rpm:recommends><rpm:suggests><rpm:entry name="s"/></rpm:suggests>
  <rpm:supplements><rpm:entry name="t"/></rpm:supplements><rpm:enhances><rpm:entry name="e" flags="GT" ver="1"/></rpm:enhances>
  <file>/etc/x</file><file type="dir">/usr/bin</file></format></package>`

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func primaryXML(packages string) string {
	return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" packages=\"1\">" + packages + "</metadata>\n"
}

var onePackageWant = Package{
	Name: "a&b", Arch: "x86_64", EVR: EVR{1, "2~rc1", "3.el9"}, Checksum: Checksum{"sha256", zeros},
	Location: "Packages/a+b-2.rpm", Base: "https://example.com/", Size: 10, InstalledSize: 20, BuildTime: 7, SourceRPM: "s.src.rpm",
	Provides:    []Dep{{Name: "p"}, {"q", Equal, EVR{0, "1", "2"}}},
	Requires:    []Dep{{Name: "(x >= 1 or y)"}, {"z", Greater | Equal, EVR{0, "1", ""}}},
	Conflicts:   []Dep{{"c", Less, EVR{3, "4", ""}}},
	Obsoletes:   []Dep{{"o", Less | Equal, EVR{0, "4", ""}}},
	Recommends:  []Dep{{Name: "r"}},
	Suggests:    []Dep{{Name: "s"}},
	Supplements: []Dep{{Name: "t"}},
	Enhances:    []Dep{{"e", Greater, EVR{0, "1", ""}}},
	Files:       []string{"/etc/x", "/usr/bin"},
}

func TestParsePrimary(t *testing.T) {
	plain := []byte(primaryXML(onePackage))
	compressors := map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	}
	inputs := map[string][]byte{"plain": plain, "bom": append([]byte("\xef\xbb\xbf"), plain...)}
	for name, compress := range compressors {
		var b bytes.Buffer
		w, err := compress(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		inputs[name] = b.Bytes()
	}
	for name, in := range inputs {
		for _, r := range []io.Reader{bytes.NewReader(in), iotest.HalfReader(bytes.NewReader(in)), iotest.OneByteReader(bytes.NewReader(in))} {
			got, err := ParsePrimary(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(got) != 1 || !reflect.DeepEqual(got[0], onePackageWant) {
				t.Errorf("%s: got %+v, want %+v", name, got, onePackageWant)
			}
		}
	}
	if got, want := onePackageWant.String(), "a&b-1:2~rc1-3.el9.x86_64"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	if got, want := onePackageWant.Requires[1].String(), "z >= 1"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

// TestParsePrimaryBzip2 reads bzip2, which the standard library cannot write:
// `printf '<metadata/>' | bzip2`.
func TestParsePrimaryBzip2(t *testing.T) {
	in := "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\xd0\x43\x7f\x9c\x00\x00\x00\x99\x80\x00\x00\x80\x05\x26\x02\x04\x00\x20\x00\x22\x0c\x9a\x7a\x84\x30\x21\xb4\x54\xd3\x91\xe2\xee\x48\xa7\x0a\x12\x1a\x08\x6f\xf3\x80"
	if pkgs, err := ParsePrimary(strings.NewReader(in)); err != nil || len(pkgs) != 0 {
		t.Errorf("got %v, %v, want no packages", pkgs, err)
	}
}

func TestParsePrimaryErrors(t *testing.T) {
	with := func(old, new string) string { return primaryXML(strings.Replace(onePackage, old, new, 1)) }
	for _, c := range []struct{ in, want string }{
		{"", "primary: line 1 (byte 0): unexpected EOF"},
		{"<repomd/>", "document element is <repomd>"},
		{"nonsense", "text outside"},
		{primaryXML(onePackage)[:900], "unexpected EOF"},
		{primaryXML("") + "<x/>", "second document element"},
		{"<metadata></package>", "unexpected end tag </package>"},
		{"<!DOCTYPE x [<!ENTITY a \"b\">]><metadata/>", "internal subset is refused"},
		{"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><metadata/>", `encoding "ISO-8859-1"`},
		{strings.Repeat("<metadata>", 100), "nested deeper than 64"},
		{"<metadata><x y='" + strings.Repeat(" ", 2<<20) + "'/></metadata>", "longer than"},
		{with("<name>a&amp;b", "<name>a&nbsp;b"), "entity &nbsp; is not known"},
		{with("<name>a&amp;b", "<name>a & b"), "stray &"},
		{with("<name>a&amp;b", "<name>a\x01b"), "control character"},
		{with("<name>a&amp;b", "<name>a\xffb"), "not UTF-8"},
		{with("<name>a&amp;b", "<name><i>b</i>"), "an element where text was expected"},
		{with("<name>a&amp;b</name>", ""), "has no name"},
		{with(`ver="2~rc1"`, ""), "has no version"},
		{with(`epoch="1"`, `epoch="one"`), `epoch "one" is not a number`},
		{with("sha256", "crc32"), `unknown checksum type "crc32"`},
		{with(zeros, "00"), "has 2 digits"},
		{with(zeros, strings.Repeat("Z", 64)), "not lower-case hexadecimal"},
		{with(`package="10"`, `package="-1"`), "is not a number"},
		{with(`build="7"`, `build="now"`), "is not a number"},
		{with("Packages/a&#43;b-2.rpm", "../a.rpm"), "leaves the repository"},
		{with("Packages/a&#43;b-2.rpm", "a/%2e%2e/b.rpm"), "leaves the repository"},
		{with("Packages/a&#43;b-2.rpm", "/a.rpm"), "not a relative path"},
		{with("Packages/a&#43;b-2.rpm", "http://example.com/a.rpm"), "has a scheme"},
		{with("Packages/a&#43;b-2.rpm", ""), "location is empty"},
		{with(`flags="EQ"`, `flags="XX"`), "unknown flags"},
		{with(`<rpm:entry name="p"/>`, `<rpm:entry/>`), "a dependency without a name"},
		{with(`<rpm:entry name="p"/>`, `<rpm:entry name=p/>`), "is not quoted"},
	} {
		pkgs, err := ParsePrimary(strings.NewReader(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "primary: ") {
			t.Errorf("%.200q: got %d packages and error %v, want one with %q", c.in, len(pkgs), err, c.want)
		}
	}
	boom := errors.New("boom")
	if _, err := ParsePrimary(io.MultiReader(strings.NewReader("<metadata>"), iotest.ErrReader(boom))); !errors.Is(err, boom) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

// TestLimit reads more than is allowed, compressed to almost nothing.
func TestLimit(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, "<metadata>")
	for range 64 {
		w.Write(make([]byte, 1<<20))
	}
	w.Close()
	_, err := parsePrimary(&b, 1<<20)
	if err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("got %v, want the limit", err)
	}
	z, err := Decompress(strings.NewReader("12345"), 5)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != "12345" {
		t.Errorf("got %q, %v, want as much as the limit allows", got, err)
	}
}

// TestParsePrimaryC9S reads a real repository.
func TestParsePrimaryC9S(t *testing.T) {
	pkgs, err := ParsePrimary(open(t, "rpm-md/c9s-baseos/repodata/*-primary.xml.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) != 1125 {
		t.Fatalf("%d packages, want 1125", len(pkgs))
	}
	i := 0
	for pkgs[i].Name != "bash" {
		i++
	}
	k := pkgs[i]
	if k.String() != "bash-5.1.8-2.el9.x86_64" || k.SourceRPM != "bash-5.1.8-2.el9.src.rpm" || len(k.Provides) != 5 || k.BuildTime == 0 ||
		len(k.Requires) == 0 || !strings.HasSuffix(k.Location, ".rpm") {
		t.Errorf("got %+v", k)
	}
}

func BenchmarkLoadC9S(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(51840420 + 8471009) // of the two files, decompressed
	for b.Loop() {
		n := 0
		for _, repo := range []string{"baseos", "appstream"} {
			f := open(b, "rpm-md/c9s-"+repo+"/repodata/*-primary.xml.gz")
			pkgs, err := ParsePrimary(f)
			if err != nil {
				b.Fatal(err)
			}
			f.Close()
			n += len(pkgs)
		}
		if n != 18774 {
			b.Fatalf("%d packages, want 18774", n)
		}
	}
}

// seed adds the first bytes of a real file, decompressed, and small cases.
func seed(f *testing.F, pattern string, small ...string) {
	for _, s := range small {
		f.Add([]byte(s))
	}
	names, _ := filepath.Glob(filepath.Join(data, pattern))
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			f.Fatal(err)
		}
		z, err := Decompress(file, 1<<30)
		if err != nil {
			f.Fatal(err)
		}
		head := make([]byte, 16<<10)
		n, _ := io.ReadFull(z, head)
		f.Add(head[:n])
		file.Close()
	}
}

func FuzzPrimary(f *testing.F) {
	seed(f, "rpm-md/*/repodata/*-primary.xml.gz", primaryXML(onePackage), "<metadata/>")
	f.Fuzz(func(t *testing.T, in []byte) {
		pkgs, err := parsePrimary(bytes.NewReader(in), 1<<20)
		if err != nil {
			return
		}
		for i := range pkgs {
			if err := checkHref(pkgs[i].Location); err != nil || pkgs[i].Name == "" {
				t.Errorf("accepted %+v: %v", pkgs[i], err)
			}
		}
	})
}
