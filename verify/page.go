package verify

import (
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"caisson/lock/digest"
	"caisson/verify/diff"
)

//go:embed *.gohtml
var templates embed.FS

// openNodes is up to how many differences all are shown unfolded.
const openNodes = 60

// WritePage writes the report as one HTML page that needs nothing else: no
// network, no script. Whatever comes from an image is escaped.
func WritePage(w io.Writer, r *Report) error {
	return execute(w, "report.gohtml", newPage(r))
}

// execute writes a page.
func execute(w io.Writer, name string, data any) error {
	t, err := template.ParseFS(templates, "*.gohtml")
	if err != nil {
		return fmt.Errorf("reading the page's template: %w", err)
	}
	if err := t.ExecuteTemplate(w, name, data); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// page is what the template shows, in words.
type page struct {
	Title, Name, Class, Verdict, Meaning, Reason string
	File, Digest, Lock                           string // the image's file and digest
	Facts                                        []pageFact
	Checks                                       []checkRow
	Artifacts                                    []fact
	OtherClass                                   string // of what image and rebuild have not in common
	Rebuilt, RootHash                            string
	Archive                                      bool // it is no disk, and no machine boots it
	Booted                                       bool
	PCRs, Others                                 []pcrRow
	Conditions                                   []Condition
	Varied                                       int
	Exceptions                                   []Exception
	Affected                                     []string
	Blame                                        []string
	Compared                                     bool // there was a rebuild to compare with
	Differences                                  []nodeView
	NodeCount                                    int
	Started, Finished, Took, Caisson             string
	Version                                      int
}

type checkRow struct {
	Name, Detail  string
	Class, Status string
}

// fact is something that image and rebuild have in common, or not.
type fact struct {
	Name, Image, Rebuilt string
	Same                 bool
	Code                 bool
	Names                bool // differing is nothing bad
}

type pcrRow struct {
	Number, What, Predicted, Measured string
	Class, Words, Note                string
}

// nodeView is a difference, ready to be shown.
type nodeView struct {
	Path, Other, Sign, SignWords string
	Comments                     []string
	Diff                         []diffLines
	Details                      []nodeView
	Open                         bool
}

// diffLines are lines of a unified diff that are of one kind.
type diffLines struct{ Class, Text string }

func newPage(r *Report) page {
	p := page{
		Name: fullName(r), File: diff.Printable(r.Image.Name), Digest: digestText(r.Image.SHA256), Reason: sentence(r.Reason), Lock: digestText(r.Lock), RootHash: diff.Printable(r.RootHash),
		Booted: len(r.Measured) > 0, Conditions: printableConditions(r.Conditions), Compared: r.Rebuilt != nil, Archive: r.IsArchive(),
		Caisson: diff.Printable(r.Caisson), Version: r.Version,
	}
	p.Class, p.Verdict, p.Meaning = verdictWords(r.Verdict)
	if r.Verdict == NotVerified && r.Refused() {
		p.Meaning = "This is not a success: a policy, or somebody who is trusted, refuses this image."
	}
	p.Title = fmt.Sprintf("%s: %s", p.Name, p.Verdict)
	p.addChecks(r)
	p.addArtifacts(r)
	p.PCRs, p.Others = pcrRows(r)
	for _, c := range p.Conditions {
		if c.Varied {
			p.Varied++
		}
	}
	for _, e := range r.Exceptions {
		p.Exceptions = append(p.Exceptions, Exception{
			Rule: diff.Printable(e.Rule), Function: diff.Printable(e.Function), Match: diff.Printable(e.Match),
			Who: diff.Printable(e.Who), Why: diff.Printable(e.Why), Until: diff.Printable(e.Until),
		})
	}
	for _, a := range r.Affected {
		p.Affected = append(p.Affected, diff.Printable(a))
	}
	for _, b := range r.Blame {
		p.Blame = append(p.Blame, diff.Printable(b.Text))
	}
	p.NodeCount = countNodes(r.Differences)
	p.Differences = nodeViews(r.Differences, 0, p.NodeCount <= openNodes)
	p.Facts = reportFacts(r)
	p.Started, p.Finished, p.Took = times(r.Started, r.Finished)
	return p
}

func fullName(r *Report) string {
	name := r.Name
	if r.Variant != "" {
		name += ", variant " + r.Variant
	}
	return diff.Printable(name)
}

// sentence is s with a capital letter and a full stop.
func sentence(s string) string {
	s = strings.TrimSpace(diff.Printable(s))
	if s == "" {
		return ""
	}
	if c := s[0]; 'a' <= c && c <= 'z' {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// verdictWords is the verdict's class, name and meaning. A verdict that is
// not known is not verified.
func verdictWords(v Verdict) (class, name, meaning string) {
	switch v {
	case Identical:
		return "identical", "Identical", "The image is exactly what its lock makes: a rebuild gave the same bytes."
	case Equivalent:
		return "equivalent", "Equivalent", "The image is what its lock makes, but for differences that the published exceptions name."
	case Different:
		return "different", "Different", "Do not trust this image: it is not what its lock makes, or it contradicts itself."
	}
	return "unverified", "Not verified", "This is not a success: something that the verdict rests on could not be checked."
}

// statusWords is the class of a check's status, and the status itself.
func statusWords(s Status) (class, words string) {
	switch s {
	case Passed:
		return "passed", "passed"
	case Failed:
		return "failed", "failed"
	case Refused:
		return "failed", "refused"
	case NotAsked:
		return "notasked", "not asked for"
	}
	return "notchecked", "not checked"
}

func (p *page) addChecks(r *Report) {
	for _, c := range r.Checks {
		class, words := statusWords(c.Status)
		p.Checks = append(p.Checks, checkRow{Name: diff.Printable(c.Name), Detail: diff.Printable(c.Detail), Class: class, Status: words})
	}
}

func (p *page) addArtifacts(r *Report) {
	rebuilt := r.Rebuilt
	if rebuilt == nil {
		rebuilt = &Artifact{}
	}
	p.OtherClass = "failed"
	if r.Verdict == Equivalent {
		p.OtherClass = "notasked"
	}
	p.Artifacts = append(p.Artifacts, fact{Name: "File", Image: diff.Printable(r.Image.Name), Rebuilt: diff.Printable(rebuilt.Name), Names: true})
	add := func(name, a, b string, code bool) {
		p.Artifacts = append(p.Artifacts, fact{Name: name, Image: a, Rebuilt: b, Same: a == b, Code: code})
	}
	a, b := r.Image, *rebuilt
	add("Size", sizeText(a.Size), sizeText(b.Size), false)
	add("SHA-256 of the file", digestText(a.SHA256), digestText(b.SHA256), true)
	switch {
	case !a.Disk.IsZero():
		add("SHA-256 of the disk in it", digestText(a.Disk), digestText(b.Disk), true)
	case !a.Manifest.IsZero():
		add("Digest of the manifest in it", digestText(a.Manifest), digestText(b.Manifest), true)
	}
}

// digestText is the digest, or a dash for none.
func digestText(d digest.Digest) string {
	if d == (digest.Digest{}) {
		return "–"
	}
	return d.String()
}

func sizeText(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var groups []string
	for len(digits) > 3 {
		groups = append(groups, digits[len(digits)-3:])
		digits = digits[:len(digits)-3]
	}
	groups = append(groups, digits)
	slices.Reverse(groups)
	return strings.Join(groups, "\u202f") + " bytes"
}

// pcrWhat is what goes into a PCR (TCG PC Client Platform Firmware Profile;
// systemd's "TPM2 PCR Measurements").
func pcrWhat(pcr string) string {
	switch pcr {
	case "0":
		return "firmware code"
	case "1":
		return "firmware configuration"
	case "2", "3":
		return "option ROMs"
	case "4":
		return "boot loader and kernel: the UKI and the kernel in it"
	case "5":
		return "partition table"
	case "7":
		return "Secure Boot state"
	case "8", "14":
		return "boot loader"
	case "9":
		return "kernel command line and initrd"
	case "10":
		return "IMA"
	case "11":
		return "sections of the UKI, and boot phases"
	case "12":
		return "command lines and credentials from outside"
	case "13":
		return "system extensions"
	case "15":
		return "identity of the machine"
	}
	return ""
}

// pcrRows are the PCRs that were predicted, and the others that were
// measured. What was predicted holds when the kernel takes over; the boot
// check compared event by event, so where it passed a value that moved on is
// as it should be.
func pcrRows(r *Report) (predicted, others []pcrRow) {
	bootPassed := slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == "boot" && c.Status == Passed })
	all := maps.Clone(r.PCRs)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, r.Measured)
	for _, pcr := range slices.SortedFunc(maps.Keys(all), byNumber) {
		want, isPredicted := r.PCRs[pcr]
		got, isMeasured := r.Measured[pcr]
		row := pcrRow{Number: diff.Printable(pcr), What: pcrWhat(pcr), Predicted: diff.Printable(want), Measured: diff.Printable(got)}
		switch {
		case !isPredicted:
			row.Class, row.Words = "notasked", "not predicted"
			others = append(others, row)
			continue
		case !isMeasured:
			row.Class, row.Words = "notasked", "not measured"
		case want == got:
			row.Class, row.Words = "passed", "as predicted"
		case bootPassed:
			row.Class, row.Words, row.Note = "passed", "as predicted", "and then extended by boot phases"
		default:
			row.Class, row.Words = "failed", "otherwise"
		}
		predicted = append(predicted, row)
	}
	return predicted, others
}

func byNumber(a, b string) int {
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	if errX != nil || errY != nil {
		return cmp.Compare(a, b)
	}
	return cmp.Compare(x, y)
}

func printableConditions(list []Condition) []Condition {
	out := make([]Condition, 0, len(list))
	for _, c := range list {
		out = append(out, Condition{Name: diff.Printable(c.Name), Varied: c.Varied, Reached: c.Reached, Detail: diff.Printable(c.Detail)})
	}
	return out
}

func countNodes(nodes []*diff.Node) int {
	n := len(nodes)
	for _, x := range nodes {
		n += countNodes(x.Details)
	}
	return n
}

// nodeViews unfolds all nodes, or those near the top.
func nodeViews(nodes []*diff.Node, depth int, all bool) []nodeView {
	const nearTop = 2
	var out []nodeView
	for _, n := range nodes {
		v := nodeView{Path: diff.Printable(n.Path()), Sign: "±", SignWords: "changed", Open: all || depth < nearTop}
		switch none := "/dev/null"; {
		case n.Source1 == none:
			v.Sign, v.SignWords = "+", "added"
		case n.Source2 == none:
			v.Sign, v.SignWords = "−", "removed"
		case n.Source1 != n.Source2:
			v.Other = diff.Printable(n.Source2)
		}
		for _, c := range n.Comments {
			v.Comments = append(v.Comments, diff.Printable(c))
		}
		if n.UnifiedDiff != nil {
			v.Diff = groupLines(*n.UnifiedDiff)
		}
		v.Details = nodeViews(n.Details, depth+1, all)
		out = append(out, v)
	}
	return out
}

// groupLines puts lines of one kind together.
func groupLines(unified string) []diffLines {
	var out []diffLines
	for line := range strings.Lines(diff.Printable(unified)) {
		class := ""
		switch line[0] {
		case '+':
			class = "ins"
		case '-':
			class = "del"
		case '@', '\\':
			class = "hunk"
		}
		if last := len(out) - 1; last >= 0 && out[last].Class == class {
			out[last].Text += line
		} else {
			out = append(out, diffLines{class, line})
		}
	}
	return out
}

// times are both times in words, and how long it took.
func times(started, finished string) (from, to, took string) {
	a, errA := time.Parse(time.RFC3339, started)
	b, errB := time.Parse(time.RFC3339, finished)
	if errA != nil || errB != nil {
		return diff.Printable(started), diff.Printable(finished), ""
	}
	const form = "2 January 2006, 15:04:05 UTC"
	return a.UTC().Format(form), b.UTC().Format(form), b.Sub(a).String()
}
