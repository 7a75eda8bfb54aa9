package spdx_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
	spdxcommon "github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"

	"caisson/attest/internal/fixture"
	"caisson/attest/spdx"
	"caisson/lock"
	"caisson/lock/digest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func subject(t testing.TB) spdx.Subject {
	t.Helper()
	l := fixture.Lock()
	d, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return spdx.Subject{
		Name:     "registry.example/demo@sha256:ab",
		Manifest: digest.Of([]byte("manifest")),
		Lock:     l, LockDigest: d, Image: fixture.Image(d), Disk: fixture.Disk(),
		PURL: "pkg:generic/demo.qcow2?checksum=" + fixture.Disk().SHA256.String(), Files: fixture.Files(), Facts: fixture.Facts, Signer: fixture.Signer,
	}
}

func write(t testing.TB, s spdx.Subject) []byte {
	t.Helper()
	doc, err := spdx.New(s)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := doc.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read reads a document as others do.
func read(t testing.TB, b []byte) *spdxcommon.Document {
	t.Helper()
	doc, err := spdxjson.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestGolden(t *testing.T) {
	debug := subject(t)
	debug.Image.Variant = "debug"
	for name, s := range map[string]spdx.Subject{"image": subject(t), "debug": debug} {
		var b bytes.Buffer
		if err := json.Indent(&b, write(t, s), "", " "); err != nil {
			t.Fatal(err)
		}
		got := append(b.Bytes(), '\n')
		file := filepath.Join("testdata", name+".spdx.json")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant (-update writes it)\n%s", name, got, want)
		}
	}
}

// TestSameBytes writes the document again, with the files in another order.
func TestSameBytes(t *testing.T) {
	want := write(t, subject(t))
	t.Setenv("TZ", "Asia/Kolkata")
	s := subject(t)
	slices.Reverse(s.Files)
	if got := write(t, s); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestWrite compares the text with what tools-golang writes.
func TestWrite(t *testing.T) {
	got := write(t, subject(t))
	var want, compact bytes.Buffer
	if err := spdxjson.Write(read(t, got), &want, spdxjson.EscapeHTML(false)); err != nil {
		t.Fatal(err)
	}
	if err := json.Compact(&compact, want.Bytes()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, compact.Bytes()) {
		t.Errorf("got\n%s\nwant\n%s", got, compact.Bytes())
	}
	doc, err := spdx.New(subject(t))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("disk full")
	if err := doc.Write(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestValid reads the document with the reader that people use, and checks
// what the SPDX 2.3 JSON schema and sections 6 to 8 and 11 demand.
func TestValid(t *testing.T) {
	b := write(t, subject(t))
	doc := read(t, b)
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	if doc.SPDXVersion != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" || doc.SPDXIdentifier != "DOCUMENT" || doc.CreationInfo.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("got %s, %s, %s, created %s", doc.SPDXVersion, doc.DataLicense, doc.SPDXIdentifier, doc.CreationInfo.Created)
	}
	if want := subject(t).Name; doc.DocumentName != want {
		t.Errorf("name: got %q, want %q", doc.DocumentName, want)
	}
	ids := map[common.ElementID]bool{"DOCUMENT": true}
	add := func(id common.ElementID) {
		if ids[id] || !regexp.MustCompile(`^[A-Za-z0-9.-]+$`).MatchString(string(id)) {
			t.Errorf("identifier %q is not unique or not well formed", id)
		}
		ids[id] = true
	}
	for _, p := range doc.Packages {
		add(p.PackageSPDXIdentifier)
		if p.PackageName == "" || p.PackageDownloadLocation == "" || p.PackageSupplier == nil {
			t.Errorf("%s: no name, download location or supplier", p.PackageSPDXIdentifier)
		}
		if p.PrimaryPackagePurpose == "SOURCE" && len(p.PackageChecksums) == 0 {
			continue // of a source package only the name is known
		}
		if strings.HasPrefix(string(p.PackageSPDXIdentifier), "Imported-") && len(p.PackageChecksums) == 0 {
			continue // nor of what others list
		}
		if len(p.PackageChecksums) != 1 || p.PackageChecksums[0].Algorithm != common.SHA256 || len(p.PackageChecksums[0].Value) != 64 {
			t.Errorf("%s: checksums %v", p.PackageSPDXIdentifier, p.PackageChecksums)
		}
		if p.FilesAnalyzed != (p.PackageVerificationCode != nil) {
			t.Errorf("%s: files analysed %t, code %v", p.PackageSPDXIdentifier, p.FilesAnalyzed, p.PackageVerificationCode)
		}
	}
	for _, f := range doc.Files {
		add(f.FileSPDXIdentifier)
		if !strings.HasPrefix(f.FileName, "./") || len(f.Checksums) != 2 || f.Checksums[0].Algorithm != common.SHA1 || f.Checksums[1].Algorithm != common.SHA256 {
			t.Errorf("%s: checksums %v", f.FileName, f.Checksums)
		}
	}
	for _, r := range doc.Relationships {
		if !ids[r.RefA.ElementRefID] || !ids[r.RefB.ElementRefID] {
			t.Errorf("%v %s %v: an end is missing", r.RefA, r.Relationship, r.RefB)
		}
	}
}

func TestRelations(t *testing.T) {
	doc := read(t, write(t, subject(t)))
	name := map[common.ElementID]string{"DOCUMENT": "document"}
	for _, p := range doc.Packages {
		name[p.PackageSPDXIdentifier] = p.PackageFileName
		if p.PackageFileName == "" {
			name[p.PackageSPDXIdentifier] = p.PackageName
		}
	}
	for _, f := range doc.Files {
		name[f.FileSPDXIdentifier] = f.FileName
	}
	got := map[string]int{}
	for _, r := range doc.Relationships {
		got[name[r.RefA.ElementRefID]+" "+r.Relationship+" "+name[r.RefB.ElementRefID]]++
	}
	for _, want := range []string{
		"document DESCRIBES demo.qcow2",
		"caisson.lock DEPENDENCY_MANIFEST_OF demo.qcow2",
		"demo.qcow2 CONTAINS bash-5.2-1.x86_64.rpm",
		"bash-5.2-1.x86_64.rpm BUILD_TOOL_OF demo.qcow2",
		"rpm-4.18-1.x86_64.rpm BUILD_TOOL_OF demo.qcow2",
		"v0.0.1-go1.26.0.linux-amd64.zip BUILD_TOOL_OF demo.qcow2",
		"bash-5.2-1.x86_64.rpm DEPENDS_ON glibc-2.39-1.x86_64.rpm",
		"kmod-31-1.x86_64.rpm DEPENDS_ON glibc-2.39-1.x86_64.rpm",
		"rpm-4.18-1.x86_64.rpm DEPENDS_ON bash-5.2-1.x86_64.rpm",
		"serde-json-1.0.1.crate BUILD_DEPENDENCY_OF demo.qcow2",
		"payload/guest DEPENDS_ON serde-json-1.0.1.crate",
		"payload/agent DEPENDS_ON v0.30.0.zip",
		"repomd.xml OTHER demo.qcow2",
		"bash-5.2-1.x86_64.rpm CONTAINS ./root/usr/bin/bash",
		"glibc-2.39-1.x86_64.rpm CONTAINS ./root/usr/lib64/libc.so.6",
		"glibc-2.39-1.x86_64.rpm CONTAINS ./initrd/usr/lib64/libc.so.6",
		"demo.qcow2 CONTAINS ./root/etc/profile",
		"./root/etc/profile GENERATED_FROM bash-5.2-1.x86_64.rpm",
		"./root/usr/bin/agent GENERATED_FROM v0.30.0.zip",
		"./root/usr/bin/guest GENERATED_FROM serde-json-1.0.1.crate",
		"./root/etc/motd & <issue> GENERATED_FROM rootfs",
		"demo.qcow2 CONTAINS ./root/etc/ld.so.cache",
		"demo.qcow2 CONTAINS ./esp/EFI/BOOT/BOOTX64.EFI",
	} {
		if got[want] != 1 {
			t.Errorf("%s: got it %d times, want once", want, got[want])
		}
	}
	for r := range got {
		for _, not := range []string{"strace", "aarch64", "rootfs-debug", "CONTAINS rpm-4.18"} {
			if strings.Contains(r, not) {
				t.Errorf("%s: is not of this image", r)
			}
		}
	}
	if c := doc.Packages[0].PackageComment; !strings.Contains(c, "3 vendor, 1 changed, 2 compiled, 1 placed, 3 generated") || !strings.Contains(c, "1 folders, 1 symbolic links and 1 other") {
		t.Errorf("the image's comment: %s", c)
	}
}

// TestVerificationCode computes a code by section 7.9 from the document.
func TestVerificationCode(t *testing.T) {
	doc := read(t, write(t, subject(t)))
	var all []string
	sums := map[common.ElementID]string{}
	for _, f := range doc.Files {
		sums[f.FileSPDXIdentifier] = f.Checksums[0].Value
		all = append(all, f.Checksums[0].Value)
	}
	of := map[common.ElementID][]string{"Image": all}
	for _, r := range doc.Relationships {
		if s := sums[r.RefB.ElementRefID]; s != "" && r.Relationship == common.TypeRelationshipContains && r.RefA.ElementRefID != "Image" {
			of[r.RefA.ElementRefID] = append(of[r.RefA.ElementRefID], s)
		}
	}
	codes := 0
	for _, p := range doc.Packages {
		list := of[p.PackageSPDXIdentifier]
		if len(list) == 0 {
			continue
		}
		slices.Sort(list)
		sum := sha1.Sum([]byte(strings.Join(list, "")))
		if got, want := p.PackageVerificationCode.Value, hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s: got %s, want %s", p.PackageName, got, want)
		}
		codes++
	}
	if codes != 3 {
		t.Errorf("got %d packages with files, want the image, bash and glibc", codes)
	}
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*spdx.Subject){
		"no SHA-256":      func(s *spdx.Subject) { s.Files[0].SHA256 = nil },
		"no SHA-1":        func(s *spdx.Subject) { s.Files[0].SHA1 = "" },
		"SHA-1 upper":     func(s *spdx.Subject) { s.Files[0].SHA1 = strings.ToUpper(s.Files[0].SHA1) },
		"no account":      func(s *spdx.Subject) { s.Files[0].Account = "" },
		"no package":      func(s *spdx.Subject) { s.Files[0].Inputs = nil },
		"unknown package": func(s *spdx.Subject) { s.Files[0].Inputs = []string{"rpm/zsh-5.9-1.x86_64"} },
		"foreign package": func(s *spdx.Subject) { s.Files[0].Inputs = []string{"rpm/strace-6.7-1.x86_64"} },
		"twice":           func(s *spdx.Subject) { s.Files = append(s.Files, s.Files[0]) },
	} {
		s := subject(t)
		change(&s)
		if _, err := spdx.New(s); err == nil || !strings.Contains(err.Error(), "./root/usr/bin/bash") {
			t.Errorf("%s: got %v, want an error that names ./root/usr/bin/bash", name, err)
		}
	}
	s, broken := subject(t), errors.New("not in the store")
	s.Facts = func(in *lock.Input) (spdx.Facts, error) {
		if in.RPM != nil && in.RPM.Name == "glibc" {
			return spdx.Facts{}, broken
		}
		return fixture.Facts(in)
	}
	if _, err := spdx.New(s); !errors.Is(err, broken) || !strings.Contains(err.Error(), "rpm/glibc-2.39-1.x86_64") {
		t.Errorf("got %v, want the header's error and the package's name", err)
	}
}
