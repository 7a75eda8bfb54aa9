package solve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

// primaryXML writes a repository from lines such as
//
//	a-1:2-1.x86_64 Requires: b, c >= 2 | Provides: d = 1 | Files: /usr/bin/a
//
// whose first word is a NEVRA. Paths of "Extra" are for filelistsXML only.
func primaryXML(t testing.TB, text string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm">`)
	for _, l := range repoLines(text) {
		k := parseLine(t, l)
		fmt.Fprintf(&b, `<package type="rpm"><name>%s</name><arch>%s</arch><version epoch="%d" ver="%s" rel="%s"/><checksum type="sha256" pkgid="YES">%s</checksum>`+
			`<summary/><description/><packager/><url/><time file="1" build="1"/><size package="1" installed="1" archive="1"/><location href="%s.rpm"/><format><rpm:license/>`+
			`<rpm:sourcerpm>s-1-1.src.rpm</rpm:sourcerpm>`, k.name, k.arch, k.evr.Epoch, k.evr.Version, k.evr.Release, k.digest(), k.file())
		for _, rel := range []string{"Provides", "Requires", "Conflicts", "Obsoletes", "Recommends", "Suggests", "Supplements", "Enhances"} {
			fmt.Fprintf(&b, "<rpm:%s>", strings.ToLower(rel))
			if rel == "Provides" {
				fmt.Fprintf(&b, `<rpm:entry name="%s" flags="EQ" epoch="%d" ver="%s" rel="%s"/>`, k.name, k.evr.Epoch, k.evr.Version, k.evr.Release)
			}
			for _, d := range k.lists[rel] {
				writeEntry(t, &b, d)
			}
			fmt.Fprintf(&b, "</rpm:%s>", strings.ToLower(rel))
		}
		for _, f := range k.lists["Files"] {
			fmt.Fprintf(&b, "<file>%s</file>", f)
		}
		b.WriteString("</format></package>\n")
	}
	b.WriteString("</metadata>\n")
	return b.String()
}

func filelistsXML(t testing.TB, text string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`<filelists xmlns="http://linux.duke.edu/metadata/filelists">`)
	for _, l := range repoLines(text) {
		k := parseLine(t, l)
		fmt.Fprintf(&b, `<package pkgid="%s" name="%s" arch="%s"><version epoch="%d" ver="%s" rel="%s"/>`, k.digest(), k.name, k.arch, k.evr.Epoch, k.evr.Version, k.evr.Release)
		for _, f := range append(k.lists["Files"], k.lists["Extra"]...) {
			fmt.Fprintf(&b, "<file>%s</file>", f)
		}
		b.WriteString("</package>\n")
	}
	b.WriteString("</filelists>\n")
	return b.String()
}

func repoLines(text string) []string {
	var lines []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

type linePackage struct {
	name, arch string
	evr        rpmmd.EVR
	lists      map[string][]string
}

func (k *linePackage) file() string {
	return fmt.Sprintf("%s-%s-%s.%s", k.name, k.evr.Version, k.evr.Release, k.arch)
}

func (k *linePackage) digest() string {
	h := sha256.Sum256([]byte(fmt.Sprint(k.file(), k.evr.Epoch)))
	return hex.EncodeToString(h[:])
}

func parseLine(t testing.TB, line string) *linePackage {
	t.Helper()
	nevra, rest, _ := strings.Cut(line, " ")
	base, arch, _ := cutLast(nevra, ".")
	i := strings.LastIndexByte(base[:strings.LastIndexByte(base, '-')], '-')
	evr, err := rpmmd.ParseEVR(base[i+1:])
	if err != nil {
		t.Fatal(err)
	}
	k := &linePackage{name: base[:i], arch: arch, evr: evr, lists: map[string][]string{}}
	for part := range strings.SplitSeq(rest, "|") {
		rel, list, ok := strings.Cut(part, ":")
		if !ok {
			continue
		}
		for d := range strings.SplitSeq(list, ",") {
			k.lists[strings.TrimSpace(rel)] = append(k.lists[strings.TrimSpace(rel)], strings.TrimSpace(d))
		}
	}
	return k
}

func writeEntry(t testing.TB, b *strings.Builder, d string) {
	t.Helper()
	fields := strings.Fields(d)
	if strings.HasPrefix(d, "(") || len(fields) != 3 {
		fmt.Fprintf(b, `<rpm:entry name="%s"/>`, html.EscapeString(d))
		return
	}
	evr, err := rpmmd.ParseEVR(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]string{"=": "EQ", "<": "LT", ">": "GT", "<=": "LE", ">=": "GE"}[fields[1]]
	fmt.Fprintf(b, `<rpm:entry name="%s" flags="%s" epoch="%d" ver="%s"`, fields[0], flags, evr.Epoch, evr.Version)
	if evr.Release != "" {
		fmt.Fprintf(b, ` rel="%s"`, evr.Release)
	}
	b.WriteString("/>")
}

// textRepo is a repository of lines. opened counts how often its filelists
// were asked for.
func textRepo(t testing.TB, id, text string, opened *int) Repo {
	t.Helper()
	pkgs, err := rpmmd.ParsePrimary(strings.NewReader(primaryXML(t, text)))
	if err != nil {
		t.Fatal(err)
	}
	return Repo{ID: id, Packages: pkgs, Filelists: func() (io.ReadCloser, error) {
		if opened != nil {
			*opened++
		}
		return io.NopCloser(strings.NewReader(filelistsXML(t, text))), nil
	}}
}

func textPool(t testing.TB, text string) *Pool {
	t.Helper()
	p, err := NewPool([]Repo{textRepo(t, "r", text, nil)}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
