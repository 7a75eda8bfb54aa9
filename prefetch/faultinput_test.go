package prefetch

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
)

// file is a file of an archive that a test makes.
func file(name, content string) *tar.Header {
	return &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg, Format: tar.FormatPAX,
		PAXRecords: map[string]string{contentRecord: content}}
}

const contentRecord = "CAISSON.content" // where file keeps what is in it

// makeCrate makes a crate of these entries.
func makeCrate(t testing.TB, entries ...*tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, makeTar(t, entries...))
	z.Close()
	return b.String()
}

func makeTar(t testing.TB, entries ...*tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := *e
		content := h.PAXRecords[contentRecord]
		h.PAXRecords, h.Format = nil, tar.FormatUnknown
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// gzipZeros is a gzip member of so many MiB of zeros behind a text, quickly made.
func gzipZeros(before string, mib int) string {
	var b bytes.Buffer
	z, _ := flate.NewWriter(&b, flate.BestSpeed)
	z.Write(make([]byte, 1<<20))
	z.Flush()
	one := b.String()
	var out bytes.Buffer
	out.WriteString("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff") // RFC 1952, section 2.3.1
	z, _ = flate.NewWriter(&out, flate.BestSpeed)
	io.WriteString(z, before)
	z.Flush()
	out.WriteString(strings.Repeat(one, mib))
	return out.String() // it has no end: nobody gets so far
}

// crates are archives under the name of the crate bad-1.0.0.
func badCrates(t *testing.T) map[string][2]string {
	const top = "bad-1.0.0/"
	manifest := file(top+"Cargo.toml", "[package]")
	of := func(more ...*tar.Header) string { return makeCrate(t, append([]*tar.Header{manifest}, more...)...) }
	link := func(typ byte, name, to string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: typ, Linkname: to}
	}
	huge := makeTar(t, manifest, file(top+"huge", ""))
	huge = huge[:1024] + hugeSize(huge[1024:1536]) + huge[1536:]
	var many []*tar.Header
	for n := range maxCrateFiles + 1 {
		many = append(many, &tar.Header{Name: fmt.Sprint(top, n), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR})
	}
	good := of(file(top+"src/lib.rs", "pub fn x() {}"))
	return map[string][2]string{ // what is in it, and what is said of it
		"good":                  {good, ""},
		"folders":               {of(link(tar.TypeDir, top, ""), link(tar.TypeDir, top+"src/", ""), link(tar.TypeDir, top+"src/", "")), ""},
		"unusual names":         {of(file(top+"a b", ""), file(top+"…", ""), file(top+"A", ""), file(top+"a", ""), file(top+"-x", ""), file(top+".hidden", "")), ""},
		"dots":                  {of(file(top+"../../etc/passwd", "x")), `"bad-1.0.0/../../etc/passwd" is not below bad-1.0.0/`},
		"dots first":            {of(file("../bad-1.0.0/x", "x")), "is not below"},
		"absolute":              {of(file("/etc/passwd", "x")), "is not below"},
		"another crate":         {makeCrate(t, file("other-1.0.0/Cargo.toml", "[package]")), "is not below"},
		"beside":                {of(file("bad-1.0.0x/a", "x")), "is not below"},
		"no folder":             {of(file("a", "x")), "is not below"},
		"twice the slash":       {of(file(top+"/a", "x")), "is not below"},
		"a dot":                 {of(file(top+"./a", "x")), "is not below"},
		"newline":               {of(file(top+"a\nb", "x")), `"bad-1.0.0/a\nb" is no name`},
		"escape":                {of(file(top+"a\x1b[2J", "x")), `\x1b[2J" is no name`},
		"backslash":             {of(file(top+`a\..\b`, "x")), "is no name of a file"},
		"no text":               {of(file(top+"\xff\xfe", "x")), "is not below"},
		"overlong":              {of(file(top+strings.Repeat("a", 300), "x")), "more than 255 bytes"},
		"link out":              {of(link(tar.TypeSymlink, top+"a", "../../../etc/passwd")), "neither a file nor a folder"},
		"link in":               {of(link(tar.TypeSymlink, top+"a", "Cargo.toml")), "neither a file nor a folder"},
		"hard link":             {of(link(tar.TypeLink, top+"a", "/etc/passwd")), "neither a file nor a folder"},
		"device":                {of(link(tar.TypeChar, top+"a", "")), "neither a file nor a folder"},
		"pipe":                  {of(link(tar.TypeFifo, top+"a", "")), "neither a file nor a folder"},
		"twice":                 {of(file(top+"Cargo.toml", "[other]")), `it has "bad-1.0.0/Cargo.toml" twice`},
		"a folder and a file":   {of(link(tar.TypeDir, top+"a/", ""), file(top+"a", "x")), "twice"},
		"a file and a folder":   {of(file(top+"a", "x"), link(tar.TypeDir, top+"a/", "")), "twice"},
		"two members":           {good + makeCrate(t, file(top+"x", "x")), "there is more after the archive"},
		"more after it":         {good + "x", "there is more after the archive"},
		"no archive":            {"no archive at all", "gzip: invalid header"},
		"empty":                 {"", "EOF"},
		"cut":                   {good[:len(good)-20], "EOF"},
		"damaged":               {good[:len(good)-8] + "\x00\x00\x00\x00" + good[len(good)-4:], "gzip: invalid checksum"},
		"no tar":                {zipped(strings.Repeat("x", 2000)), "invalid tar header"},
		"a file of 2^40 bytes":  {zipped(huge), "it unpacks to too much"},
		"700 MiB after its end": {gzipZeros(makeTar(t, manifest), 700), "it unpacks to too much"},
		"200,001 files":         {makeCrate(t, many...), "it has more than 200000 files"},
	}
}

// hugeSize makes a tar header (POSIX ustar) say that its file has 2^40 bytes.
func hugeSize(header string) string {
	b := []byte(header)
	copy(b[124:], "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00") // base 256, as GNU tar has it
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return string(b)
}

// zipEntries makes a zip of files, in this order.
func zipEntries(t testing.TB, files ...[2]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		e, err := w.CreateHeader(&zip.FileHeader{Name: f[0], Method: zip.Deflate})
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(e, f[1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// badZips are zips of the module example.org/bad at v1.0.0. Their h1 is what
// go.sum has: what is wrong with them is wrong with the module.
func badZips(t *testing.T) map[string][2]string {
	const top = "example.org/bad@v1.0.0/"
	of := func(name string) string {
		return zipEntries(t, [2]string{top + "go.mod", "module example.org/bad\n"}, [2]string{name, "x"})
	}
	good := of(top + "a.go")
	// The directory says a.go, the file's own header b.go: go reads the first.
	local := strings.Replace(good, top+"a.go", top+"b.go", 1)
	large := func(size uint64) string {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		data := []byte("\x03\x00") // an empty stream (RFC 1951)
		e, err := w.CreateRaw(&zip.FileHeader{Name: top + "a.go", Method: zip.Deflate, CompressedSize64: uint64(len(data)), UncompressedSize64: size})
		if err != nil {
			t.Fatal(err)
		}
		e.Write(data)
		w.Close()
		return b.String()
	}
	lying := func() string { // 20 MiB that are said to be 10 bytes
		var data, b bytes.Buffer
		z, _ := flate.NewWriter(&data, flate.BestSpeed)
		z.Write(make([]byte, 20<<20))
		z.Close()
		w := zip.NewWriter(&b)
		e, _ := w.CreateRaw(&zip.FileHeader{Name: top + "a.go", Method: zip.Deflate, CompressedSize64: uint64(data.Len()), UncompressedSize64: 10})
		e.Write(data.Bytes())
		w.Close()
		return b.String()
	}
	many := func() string {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for n := range 150_000 {
			w.CreateRaw(&zip.FileHeader{Name: fmt.Sprintf("%s%s%d", top, strings.Repeat("x", 80), n)})
		}
		w.Close()
		return b.String()
	}
	return map[string][2]string{
		"good":             {good, ""},
		"another header":   {local, ""},
		"dots":             {of(top + "../../../etc/passwd"), `invalid path element ".."`},
		"dots at the end":  {of(top + "a/.."), "path is not clean"},
		"absolute":         {of("/etc/passwd"), "does not have prefix"},
		"another module":   {of("example.org/other@v1.0.0/a.go"), "does not have prefix"},
		"another version":  {of("example.org/bad@v1.0.1/a.go"), "does not have prefix"},
		"newline":          {of(top + "a\nb.go"), "filenames with newlines are not supported"},
		"NUL":              {of(top + "a\x00b.go"), `invalid char '\x00'`},
		"backslash":        {of(top + `a\b.go`), `invalid char '\\'`},
		"colon":            {of(top + "a:b.go"), "invalid char ':'"},
		"a device's name":  {of(top + "con.go"), "disallowed"},
		"twice":            {of(top + "go.mod"), `it has "example.org/bad@v1.0.0/go.mod" twice`},
		"twice but case":   {zipEntries(t, [2]string{top + "a.go", "x"}, [2]string{top + "A.go", "y"}), "case-insensitive file name collision"},
		"file and folder":  {zipEntries(t, [2]string{top + "a", "x"}, [2]string{top + "a/b", "y"}), "is both a file and a directory"},
		"no zip":           {"no zip at all", "not a valid zip file"},
		"cut":              {good[:len(good)-5], "not a valid zip file"},
		"damaged":          {strings.Replace(good, "PK\x03\x04", "PK\x03\x05", 1), "not a valid zip file"},
		"600 MiB":          {large(600 << 20), "it unpacks to too much"},
		"2^63 bytes":       {large(1 << 63), "it unpacks to too much"},
		"more than it say": {lying(), "not a valid zip file"},
		"150,000 files":    {many(), "its directory has more than 16777216 bytes"},
	}
}

// zipH1 is the h1 of whatever can be read of a zip, as go.sum would have it.
func zipH1(content string) string {
	z, err := zip.NewReader(strings.NewReader(content), int64(len(content)))
	if err != nil || len(z.File) > 10 {
		return h1("none", "")
	}
	files := make(map[string]string)
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return h1("none", "")
		}
		b, _ := io.ReadAll(r)
		files[f.Name] = string(b)
	}
	return h1Of(files)
}

// Archives whose digests are right, and that no build may unpack.
func TestBadArchives(t *testing.T) {
	try := func(kind string, cases map[string][2]string, add func(w *world, content string) *lock.Input) {
		for name, c := range cases {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				w, s := newWorld(t), newStore(t)
				in := add(w, c[0])
				w.cfg.MaxSize = 64 << 20
				_, err := fill(t, w, s)
				bad := c[1] != ""
				if (err != nil) != bad || bad && (!strings.Contains(err.Error(), c[1]) || !strings.HasPrefix(err.Error(), kind+" "+in.Name+": ")) {
					t.Errorf("got %v, want %s", err, c[1])
				}
				if s.Has(in.SHA256) == bad {
					t.Errorf("in the store: %v", !bad)
				}
				if bad && strings.ContainsAny(err.Error(), "\x1b\x00\n") {
					t.Errorf("a terminal would obey %q", err)
				}
				clean(t, s)
				if !bad {
					return
				}
				// Put there by somebody else it is no better.
				if _, _, err := s.Put(strings.NewReader(c[0]), digest.Digest{}); err != nil {
					t.Fatal(err)
				}
				if _, err := fill(t, w, s); err == nil || !strings.Contains(err.Error(), c[1]) {
					t.Errorf("in the store before: got %v, want %s", err, c[1])
				}
			})
		}
	}
	try("crate", badCrates(t), func(w *world, content string) *lock.Input {
		return w.addServed("/crates/dl/bad/1.0.0/download", lock.Input{Kind: lock.KindCrate, Name: "bad-1.0.0.crate", URL: "bad/1.0.0", Registry: "sparse+" + w.url + "/crates/"}, content)
	})
	try("go", badZips(t), func(w *world, content string) *lock.Input {
		const id = "example.org/bad@v1.0.0"
		return w.addServed("/go/example.org/bad/@v/v1.0.0.zip", lock.Input{Kind: lock.KindGo, Name: id + ".zip", URL: "example.org/bad/@v/v1.0.0.zip",
			Go: &lock.Go{Module: "example.org/bad", Version: "v1.0.0", H1: zipH1(content)}}, content)
	})
}
