package verify

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"caisson/build/imagefile"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify/diff"
)

// Comparison is two images, and in what they differ.
type Comparison struct {
	A, B Compared
	// Differences is nothing where both disks are the same.
	Differences []*diff.Node
	// Affected names the measurements that change; Unknown is why they are not
	// known, "" where they are.
	Affected []string
	Unknown  string
	// Caisson is the version of the program that compared.
	Caisson string
}

// Compared is one of two images. Its name is as it was given.
type Compared struct {
	Artifact
	Format   string // of the file, as OpenDisk tells it
	DiskSize int64  // bytes
}

// OpenCompared opens a file to be compared: the disk in it, or, where it is an
// archive, or compressed as initrds are, the file as it is.
func OpenCompared(name string) (*Disk, error) {
	d, err := OpenDisk(name)
	if !errors.Is(err, imagefile.ErrCompressed) && !errors.Is(err, imagefile.ErrArchive) {
		return d, err
	}
	f, openErr := os.Open(name)
	if openErr != nil {
		return nil, openErr
	}
	st, statErr := f.Stat()
	if statErr != nil {
		return nil, errors.Join(statErr, f.Close())
	}
	d = &Disk{ReaderAt: f, Size: st.Size(), Format: imagefile.Raw, file: f}
	if errors.Is(err, imagefile.ErrArchive) {
		d.Format = lock.OutputTar
	}
	return d, nil
}

// ReadCompared reads an image to its end, for the digests.
func ReadCompared(name string, d *Disk) (Compared, error) {
	c := Compared{Artifact: Artifact{Name: name}, Format: d.Format, DiskSize: d.Size}
	f, err := os.Open(name)
	if err != nil {
		return c, err
	}
	defer f.Close()
	if c.SHA256, c.Size, err = digest.Reader(f); err != nil {
		return c, fmt.Errorf("reading %s: %w", name, err)
	}
	if d.IsArchive() {
		return c, nil
	}
	if c.Disk, err = d.Digest(); err != nil {
		return c, fmt.Errorf("%s: reading the disk in it: %w", name, err)
	}
	return c, nil
}

// WriteComparison writes a comparison as one HTML page, as WritePage does.
func WriteComparison(w io.Writer, c *Comparison) error {
	return execute(w, "comparison.gohtml", newComparisonPage(c))
}

// comparisonPage is what the template shows, in words.
type comparisonPage struct {
	Title, Class, Meaning, Caisson string
	A, B                           struct{ Name string }
	Facts                          []pageFact
	Rows                           []fact
	Differences                    []nodeView
	NotCompared                    []string
}

func newComparisonPage(c *Comparison) comparisonPage {
	p := comparisonPage{Caisson: diff.Printable(c.Caisson)}
	p.A.Name, p.B.Name = diff.Printable(c.A.Name), diff.Printable(c.B.Name)
	switch {
	case len(c.Differences) > 0:
		p.Class, p.Title, p.Meaning = "different", "Different", "They are not the same; what differs is below."
	case c.A.SHA256 == c.B.SHA256:
		p.Class, p.Title, p.Meaning = "identical", "The same", "The files are the same, to the bit."
	default:
		p.Class, p.Title, p.Meaning = "identical", "The same disk", "The disks are the same, to the bit; the files around them are not."
	}
	add := func(name, a, b string, code bool) {
		p.Rows = append(p.Rows, fact{Name: name, Image: a, Rebuilt: b, Same: a == b, Code: code})
	}
	add("Format", diff.Printable(c.A.Format), diff.Printable(c.B.Format), false)
	add("Size of the file", sizeText(c.A.Size), sizeText(c.B.Size), false)
	disks := !c.A.Disk.IsZero() || !c.B.Disk.IsZero() // and no archives
	if disks {
		add("Size of the disk in it", sizeText(c.A.DiskSize), sizeText(c.B.DiskSize), false)
	}
	add("SHA-256 of the file", digestText(c.A.SHA256), digestText(c.B.SHA256), true)
	if disks {
		add("SHA-256 of the disk in it", digestText(c.A.Disk), digestText(c.B.Disk), true)
	}
	for _, s := range diff.NotCompared(c.Differences) {
		p.NotCompared = append(p.NotCompared, diff.Printable(s))
	}
	p.Differences = nodeViews(c.Differences, 0, countNodes(c.Differences) <= openNodes)
	p.Facts = comparisonFacts(c, len(p.NotCompared))
	return p
}

func comparisonFacts(c *Comparison, left int) []pageFact {
	compared := fmt.Sprintf("Every byte of both, %s.", sizeText(c.A.DiskSize))
	if c.A.DiskSize != c.B.DiskSize {
		compared = fmt.Sprintf("Every byte of both, %s and %s.", sizeText(c.A.DiskSize), sizeText(c.B.DiskSize))
	}
	not := pageFact{Name: "Not compared", Text: "Nothing was left out."}
	if left > 0 {
		not = pageFact{Name: "Not compared", Pills: []pagePill{{"notchecked", fmt.Sprintf("%d not looked into", left), "places that differ: see below"}}}
	}
	changes := "no measurement"
	switch {
	case c.Unknown != "":
		changes = "not known: " + c.Unknown
	case len(c.Affected) > 0:
		changes = strings.Join(c.Affected, ", ")
	}
	return []pageFact{
		{Name: "Compared", Text: compared}, not,
		{Name: "Changes", Text: "Measurements that change: " + diff.Printable(changes) + "."},
		{Name: "Repeat it", Text: "Whoever has both files.", Command: []string{"caisson diff " + shellWord(c.A.Name) + " " + shellWord(c.B.Name)}},
	}
}
