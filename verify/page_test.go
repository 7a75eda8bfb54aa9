package verify

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"caisson/lock/digest"
	"caisson/verify/diff"
)

var updatePages = flag.Bool("update-pages", false, "write the pages to the folder that CAISSON_PAGES names, to be looked at")

const hostile = `<script>alert("x")</script>"><img src=x onerror=alert(1)>` + "\u202e\x1b[2J"

func pageReport(v Verdict) *Report {
	sum := digest.Of([]byte("image"))
	r := &Report{
		Version: 1, Verdict: v, Reason: "the rebuild is the same to the bit, and everything asked for was checked",
		Name: "demo", Lock: digest.Of([]byte("lock")),
		Image:    Artifact{Name: "demo.qcow2", Size: 123404288, SHA256: sum, Disk: digest.Of([]byte("disk"))},
		RootHash: strings.Repeat("d39842ca", 8),
		PCRs:     map[string]string{}, Caisson: "v0.1.0 (0bb8e25)",
		Started: "2026-11-21T11:21:04Z", Finished: "2026-11-21T11:22:31Z",
		Checks: []Check{
			{"root hash", Passed, strings.Repeat("d39842ca", 8) + ", derived from the data and the one in the kernel's command line"},
			{"measurements", Passed, "predicted from the bytes, equal to measurements.json"},
			{"evidence", Passed, "85 steps; no attempt to reach a network"},
			{"rebuild", Passed, "made again from lock and store"},
			{"disk", Passed, "every bit of 271581184 bytes is the same"},
			{"boot", NotAsked, "the image was not booted; --boot does"},
		},
		Conditions: []Condition{
			{"build_path", true, false, "another, longer, with blanks"}, {"timezone", true, false, "NPT-5:45"}, {"umask", true, false, "077"},
			{"locales", true, false, "tr_TR.UTF-8"}, {"num_cpus", true, true, "programs are told of 3, and there are 2"}, {"time", false, false, "no namespace moves the wall clock"},
			{"kernel", false, false, "it cannot be changed here"},
		},
	}
	for _, pcr := range []string{"4", "5", "7", "9", "11", "12"} {
		r.PCRs[pcr] = digest.Of([]byte(pcr)).String()[7:]
	}
	again := r.Image
	r.Rebuilt = &again
	return r
}

func bootedReport() *Report {
	r := pageReport(Identical)
	r.Checks[5] = Check{"boot", Passed, "booted in 31 s; PCR 3, 4, 5, 7, 9, 11 and 12 are as predicted, event by event"}
	r.Measured = map[string]string{"0": digest.Of([]byte("fw")).String()[7:], "10": strings.Repeat("0", 64)}
	for pcr, value := range r.PCRs {
		r.Measured[pcr] = value
	}
	r.Measured["11"] = digest.Of([]byte("phases")).String()[7:]
	return r
}

func equivalentReport() *Report {
	r := pageReport(Equivalent)
	r.Reason = "equal but for secure-boot-signature v1 of esp:/EFI/BOOT/BOOTX64.EFI"
	r.Exceptions = []Exception{{Function: "secure-boot-signature v1", Match: "esp:/EFI/BOOT/BOOTX64.EFI", Who: "jane@example.com", Why: "signed by us", Until: "2030-01-01"}}
	r.Rebuilt.SHA256, r.Rebuilt.Disk = digest.Of([]byte("unsigned")), digest.Of([]byte("unsigned disk"))
	return r
}

func differentReport() *Report {
	r := pageReport(Different)
	r.Reason = "disk: the disks differ"
	r.Checks[4] = Check{"disk", Failed, "the disks differ"}
	r.Rebuilt.SHA256, r.Rebuilt.Disk, r.Rebuilt.Size = digest.Of([]byte("other")), digest.Of([]byte("other disk")), 123404290
	r.Blame = []Blame{{Part: "step 3: run", Variations: []string{"domain_host"}, Files: []string{"root:/etc/new"}, Text: "step 3: run depends on the host name: root:/etc/new"}}
	r.Affected = []string{"root hash", "PCR 4", "PCR 9", "PCR 11"}
	text := "@@ -1,3 +1,3 @@\n-root:x:0:0:root:/root:/bin/bash\n+root:x:0:0:root:/root:/bin/zsh\n daemon:x:1:1::/:/sbin/nologin\n"
	hex := "@@ -24,3 +24,3 @@\n 00000170: 2064 6562 7567 0000 0000 0000 0000 0000   debug..........\n-00000180: 7379 7374 656d 642e 766f 6c61 7469 6c65  systemd.volatile\n+00000180: 7379 7374 656d 642e 766f 6c61 7469 6c66  systemd.volatilf\n"
	leaf := func(path, comment, unified string) *diff.Node {
		return &diff.Node{Source1: path, Source2: path, Comments: []string{comment}, UnifiedDiff: &unified}
	}
	r.Differences = []*diff.Node{
		{Source1: "esp (partition 1)", Source2: "esp (partition 1)", Details: []*diff.Node{
			{Source1: "esp:/EFI/BOOT/BOOTX64.EFI", Source2: "esp:/EFI/BOOT/BOOTX64.EFI", Comments: []string{"from assembly", "changes PCR 4, into which the firmware measures the whole UKI"}, Details: []*diff.Node{
				leaf("esp:/EFI/BOOT/BOOTX64.EFI → .cmdline", "changes PCR 4, 9 and 11", hex),
			}},
		}},
		{Source1: "root (partition 2)", Source2: "root (partition 2)", Comments: []string{"changes the root hash, and with it the command line and PCR 4, 9 and 11"}, Details: []*diff.Node{
			leaf("root:/etc/passwd", "from scriptlets", text),
			{Source1: "/dev/null", Source2: "root:/etc/new", Comments: []string{"only in rebuild"}},
			{Source1: "root:/etc/old", Source2: "/dev/null", Comments: []string{"only in image", "from rpm/setup-2.13-1.noarch"}},
		}},
	}
	return r
}

func unverifiedReport() *Report {
	r := pageReport(NotVerified)
	r.Reason = "rebuild could not be checked: the sandbox cannot be made here: user namespaces are switched off"
	r.Rebuilt = nil
	r.Checks[3] = Check{"rebuild", NotChecked, "the sandbox cannot be made here: user namespaces are switched off"}
	r.Checks[4] = Check{"disk", NotChecked, "there is nothing to compare with"}
	return r
}

func refusedReport() *Report {
	r := pageReport(NotVerified)
	r.Reason = "refused by policy: variant: the variant \"debug\" is not allowed"
	r.Checks = append(r.Checks, Check{"policy: variant", Refused, "the variant \"debug\" is not allowed"})
	return r
}

// hostileReport has everywhere what an image could put there.
func hostileReport() *Report {
	r := differentReport()
	long := "root:/" + strings.Repeat("a-very-long-folder/", 16) + "file"
	r.Name, r.Variant, r.Reason, r.Image.Name, r.Caisson = hostile, hostile, hostile, hostile, hostile
	r.Checks = append(r.Checks, Check{hostile, Status(hostile), long + hostile})
	r.Conditions = append(r.Conditions, Condition{hostile, false, false, strings.Repeat("x", 300)})
	r.Affected = append(r.Affected, hostile)
	r.Blame = append(r.Blame, Blame{Part: hostile, Files: []string{hostile}, Text: hostile})
	r.Exceptions = []Exception{{Rule: hostile, Match: hostile, Who: hostile, Why: hostile, Until: hostile}}
	r.PCRs[hostile], r.Measured = hostile, map[string]string{"4": "otherwise", hostile: hostile}
	r.RootHash, r.Started, r.Finished = hostile, hostile, hostile
	unified := "-" + hostile + "\n+" + strings.Repeat("long line ", 100) + "\n"
	deep := &diff.Node{Source1: long, Source2: long, Comments: []string{hostile}, UnifiedDiff: &unified}
	for i := range 12 {
		deep = &diff.Node{Source1: fmt.Sprintf("%s/%d", long, i), Source2: hostile, Details: []*diff.Node{deep}}
	}
	r.Differences = append(r.Differences, deep)
	return r
}

func archiveReport() *Report {
	r := pageReport(Identical)
	r.Image.Name, r.Image.Disk, r.Image.Manifest, r.RootHash, r.PCRs = "demo.oci.tar", digest.Digest{}, digest.Of([]byte("manifest")), "", nil
	again := r.Image
	r.Rebuilt = &again
	r.Checks = append([]Check{{checkContents, Passed, "every blob is what the manifest says"}, {checkArchive, Passed, "every bit of 10240 bytes is the same"}}, r.Checks[2:4]...)
	return r
}

func pages() map[string]*Report {
	return map[string]*Report{
		"identical": pageReport(Identical), "booted": bootedReport(), "equivalent": equivalentReport(), "different": differentReport(),
		"not-verified": unverifiedReport(), "refused": refusedReport(), "hostile": hostileReport(), "archive": archiveReport(), "empty": {}, "unknown": {Verdict: "well"},
	}
}

func writePage(t *testing.T, r *Report) string {
	t.Helper()
	var sb strings.Builder
	if err := WritePage(&sb, r); err != nil {
		t.Fatal(err)
	}
	return sb.String()
}

// comparisons are pages of diff.
func comparisons() map[string]*Comparison {
	a := Compared{Artifact{Name: "a b.qcow2", Size: 10, SHA256: digest.Of([]byte("a")), Disk: digest.Of([]byte("x"))}, "qcow2", 20}
	b := Compared{Artifact{Name: "b.raw", Size: 20, SHA256: digest.Of([]byte("b")), Disk: digest.Of([]byte("x"))}, "raw", 20}
	other := b
	other.Disk, other.DiskSize = digest.Of([]byte("y")), 30
	bad := Compared{Artifact: Artifact{Name: hostile}, Format: hostile}
	left := &diff.Node{Source1: "root:/bomb", Source2: "root:/bomb", Comments: []string{"not looked into further: more than 1 bytes"}}
	return map[string]*Comparison{
		"same": {A: a, B: a}, "same-disk": {A: a, B: b, Caisson: "v1"},
		"differs":            {A: a, B: other, Differences: append(differentReport().Differences, left), Affected: []string{"root hash", "PCR 4"}},
		"hostile-comparison": {A: bad, B: bad, Differences: hostileReport().Differences, Unknown: hostile, Caisson: hostile},
	}
}

// TestPage holds every page against what makes it safe and readable.
func TestPage(t *testing.T) {
	write := map[string]func() string{}
	for name, r := range pages() {
		write[name] = func() string { return writePage(t, r) }
	}
	for name, c := range comparisons() {
		write[name] = func() string { return writeComparison(t, c) }
	}
	for name, write := range write {
		t.Run(name, func(t *testing.T) {
			got := write()
			if again := write(); again != got {
				t.Error("the same report gives two pages")
			}
			if strings.ContainsAny(got, "\x1b\u202e") {
				t.Error("control characters are not escaped")
			}
			doc, err := html.Parse(strings.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			h1 := 0
			for n := range doc.Descendants() {
				if n.Type != html.ElementNode {
					continue
				}
				if n.Data == "h1" {
					h1++
				}
				checkElement(t, n)
			}
			if h1 != 1 {
				t.Errorf("%d h1", h1)
			}
			if out := os.Getenv("CAISSON_PAGES"); *updatePages && out != "" {
				if err := os.WriteFile(filepath.Join(out, name+".html"), []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// checkElement refuses what loads something or runs.
func checkElement(t *testing.T, n *html.Node) {
	t.Helper()
	if slices.Contains([]string{"script", "img", "link", "iframe", "object", "embed", "form", "base", "a", "video", "audio"}, n.Data) {
		t.Errorf("there is an element %q", n.Data)
	}
	for _, a := range n.Attr {
		if strings.HasPrefix(a.Key, "on") || a.Key == "src" || a.Key == "href" || a.Key == "style" {
			t.Errorf("element %q has the attribute %s=%q", n.Data, a.Key, a.Val)
		}
	}
	if n.Data == "style" && n.FirstChild != nil && (strings.Contains(n.FirstChild.Data, "url(") || strings.Contains(n.FirstChild.Data, "@import")) {
		t.Error("the style loads something")
	}
}

func writeComparison(t *testing.T, c *Comparison) string {
	t.Helper()
	var sb strings.Builder
	if err := WriteComparison(&sb, c); err != nil {
		t.Fatal(err)
	}
	return sb.String()
}

func TestComparisonSays(t *testing.T) {
	for name, want := range map[string][]string{
		"same":      {"The files are the same, to the bit.", "Compared Every byte of both, 20 bytes. Not compared Nothing was left out.", "caisson diff 'a b.qcow2' 'a b.qcow2'"},
		"same-disk": {"The same disk", "the files around them are not", "Caisson v1"},
		"differs": {
			"Every byte of both, 20 bytes and 30 bytes.", "1 not looked into places that differ", "Measurements that change: root hash, PCR 4.", "Whoever has both files.",
			"What was not compared", "root:/bomb: not looked into further: more than 1 bytes", "-root:x:0:0:root:/root:/bin/bash",
		},
	} {
		got := strings.ReplaceAll(pageText(t, writeComparison(t, comparisons()[name])), "\u202f", " ")
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in %s", name, w, got)
			}
		}
	}
}

// pageText is the text of a page's body, without blanks that do not show.
func pageText(t *testing.T, page string) string {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var sb strings.Builder
	for n := range doc.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" {
			sb.WriteString(n.Data + " ")
		}
	}
	return strings.Join(strings.Fields(sb.String()), " ")
}

func TestPageSays(t *testing.T) {
	all := pages()
	for name, want := range map[string][]string{
		"identical": {
			"demo: Identical", "Compared 5 passed root hash, measurements", "1 not asked for boot", "the same", "boot not asked for the image was not booted",
			"5 of 7 conditions were varied", "time not varied kept no namespace moves", "num_cpus varied as well programs are told of 3", all["identical"].Lock.String(), all["identical"].PCRs["9"],
			"The image was not booted", "Caisson v0.1.0 (0bb8e25)", "21 November 2026, 11:21:04 UTC", "1m27s", "caisson verify demo.qcow2 --lock caisson.lock", "2 not varied time, kernel", "Repeat it Whoever has the image, the lock sha256:",
		},
		"booted":       {"caisson verify demo.qcow2 --lock caisson.lock --boot", "as predicted and then extended by boot phases", "Measured, but not predicted", "6 passed"},
		"equivalent":   {"Equivalent", "secure-boot-signature v1 esp:/EFI/BOOT/BOOTX64.EFI jane@example.com signed by us 2030-01-01"},
		"different":    {"Do not trust this image", "Measurements that change: root hash, PCR 4", "root:/etc/passwd", "-root:x:0:0:root:/root:/bin/bash", "added: root:/etc/new", "What is to blame step 3: run depends on the host name: root:/etc/new", "removed: root:/etc/old", "1 failed"},
		"not-verified": {"This is not a success", "2 not checked rebuild, disk", "There was no rebuild to compare the image with"},
		"refused":      {"Not verified", "a policy, or somebody who is trusted, refuses this image", "1 refused policy: variant"},
		"hostile":      {`<script>alert("x")</script>`, "otherwise"},
		"archive":      {"demo: Identical", "4 passed contents, archive", "Digest of the manifest in it " + all["archive"].Image.Manifest.String() + " the same", "caisson verify demo.oci.tar"},
		"empty":        {"Not verified", "Nothing was checked.", "Nothing could be predicted"},
		"unknown":      {"Not verified"},
	} {
		got := pageText(t, writePage(t, all[name]))
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in %s", name, w, got)
			}
		}
	}
	if got := pageText(t, writePage(t, all["archive"])); strings.Contains(got, "machine measures") || strings.Contains(got, "disk") {
		t.Errorf("an archive is shown as a disk: %s", got)
	}
	if got := writePage(t, all["not-verified"]); strings.Contains(got, `class="verdict identical"`) || !strings.Contains(got, `class="verdict unverified"`) {
		t.Error("what is not verified looks like success")
	}
}

var errFull = errors.New("disk full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestPageError(t *testing.T) {
	if err := WritePage(full{}, pageReport(Identical)); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}

// TestPageInBrowser has a browser lay out the worst page.
func TestPageInBrowser(t *testing.T) {
	tool, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("chromium is not installed")
	}
	dir := t.TempDir()
	name, shot := filepath.Join(dir, "page.html"), filepath.Join(dir, "page.png")
	if err := os.WriteFile(name, []byte(writePage(t, hostileReport())), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+filepath.Join(dir, "profile"),
		"--screenshot="+shot, "--window-size=1000,1200", "file://"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, out)
	}
	if st, err := os.Stat(shot); err != nil || st.Size() < 10000 {
		t.Errorf("no picture of the page: %v\n%s", err, out)
	}
}
