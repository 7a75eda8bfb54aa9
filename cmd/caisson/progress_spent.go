package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"caisson/build"
	"caisson/lock/digest"
	"caisson/verify"
)

// maxSpent is how many lines of each kind people are shown.
const maxSpent = 10

// spent is where a build's time and an image's bytes went.
type spent struct {
	Image   string        `json:"image"` // its path
	Size    int64         `json:"size"`  // of its file, in bytes
	SHA256  digest.Digest `json:"sha256"`
	Seconds float64       `json:"seconds"` // in all
	// Steps run beside each other, so that their times add up to more. The
	// longest comes first.
	Steps []stepSpent `json:"steps"`
	// Parts are the sums of root, initrd and esp. The initrd is in the ESP, too,
	// compressed.
	Parts map[string]build.Total `json:"parts"`
	// From is what brought the files of root and initrd, the most bytes first.
	From []fromSpent `json:"from"`
}

type stepSpent struct {
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	Amount  int64   `json:"amount,omitempty"` // how much there was to do
	Unit    string  `json:"unit,omitempty"`   // of the amount: packages, files or bytes
	Reused  bool    `json:"reused,omitempty"` // an earlier build's result was taken
}

// fromSpent is what a package or another input, a step, or what runs at the
// installation brought. Bytes are those of the files' contents, before
// compression; what has several names counts once.
type fromSpent struct {
	From   string      `json:"from"` // KIND/NAME of an input, or as files.json's "by"
	Root   build.Total `json:"root"`
	Initrd build.Total `json:"initrd"`
}

func (f *fromSpent) bytes() int64 { return f.Root.Bytes + f.Initrd.Bytes }

// spentOn is what a build in dir has spent.
func spentOn(dir string, d *verify.Description, b *building, all time.Duration) (*spent, error) {
	text, err := os.ReadFile(filepath.Join(dir, "files.json"))
	if err != nil {
		return nil, err
	}
	var files []build.File
	if err := json.Unmarshal(text, &files); err != nil {
		return nil, fmt.Errorf("reading files.json: %w", err)
	}
	s := &spent{Image: filepath.Join(dir, d.Files[0].Name), Size: d.Files[0].Size, SHA256: d.Files[0].SHA256, Seconds: all.Seconds(), Steps: []stepSpent{}}
	for _, st := range b.steps {
		if !st.ended.IsZero() {
			s.Steps = append(s.Steps, stepSpent{Step: st.Step, Seconds: st.took().Seconds(), Amount: st.Total, Unit: st.Unit, Reused: st.Reused})
		}
	}
	slices.SortStableFunc(s.Steps, func(a, b stepSpent) int { return cmp.Compare(b.Seconds, a.Seconds) })
	s.Parts, s.From = weigh(files)
	return s, nil
}

// content is a file that an input brought to a part of the image. Two names of
// one file are one: files.json does not tell them from two files, but an input
// seldom brings the same content twice.
type content struct {
	part, from string
	sum        digest.Digest
}

// weigh sums up the files of an image.
func weigh(files []build.File) (map[string]build.Total, []fromSpent) {
	parts, from, seen := map[string]build.Total{}, map[string]*fromSpent{}, map[content]bool{}
	for i := range files {
		f := &files[i]
		if f.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		by := broughtBy(f)
		n := build.Total{Files: 1}
		if f.SHA256 != nil && !seen[content{f.Part, by, *f.SHA256}] {
			seen[content{f.Part, by, *f.SHA256}] = true
			n.Bytes = f.Size
		}
		parts[f.Part] = plus(parts[f.Part], n)
		if f.Part == "esp" {
			continue
		}
		if from[by] == nil {
			from[by] = &fromSpent{From: by}
		}
		to := &from[by].Root
		if f.Part == "initrd" {
			to = &from[by].Initrd
		}
		*to = plus(*to, n)
	}
	out := []fromSpent{}
	for _, by := range slices.Sorted(maps.Keys(from)) {
		out = append(out, *from[by])
	}
	slices.SortStableFunc(out, func(a, b fromSpent) int { return cmp.Compare(b.bytes(), a.bytes()) })
	return parts, out
}

func plus(a, b build.Total) build.Total {
	return build.Total{Files: a.Files + b.Files, Bytes: a.Bytes + b.Bytes}
}

// broughtBy is what brought a file: its package or input, or what made it.
func broughtBy(f *build.File) string {
	if (f.Account == build.Generated || f.Account == build.Compiled || len(f.Inputs) == 0) && f.By != "" {
		return f.By
	}
	if len(f.Inputs) == 0 {
		return string(f.Account)
	}
	return f.Inputs[0]
}

// show says it in a few lines.
func (s *spent) show(ui *ui) {
	ui.stage("where the time went, by step; steps run beside each other:")
	for _, st := range s.Steps[:min(len(s.Steps), maxSpent)] {
		what := st.Step
		if n := amount(st.Amount, st.Amount, st.Unit); n != "" {
			what += ", " + n
		}
		if st.Reused {
			what += ", taken from an earlier build"
		}
		ui.stage("  %7.1f s  %s", st.Seconds, what)
	}
	if rest := s.Steps[min(len(s.Steps), maxSpent):]; len(rest) > 0 {
		sum := 0.0
		for _, st := range rest {
			sum += st.Seconds
		}
		ui.stage("  %7.1f s  %s more (--json has all)", sum, count(len(rest), "step"))
	}
	root, initrd := s.Parts["root"], s.Parts["initrd"]
	ui.stage("where the bytes went, before compression: root %s in %s, initrd %s in %s:",
		size(root.Bytes), count(root.Files, "file"), size(initrd.Bytes), count(initrd.Files, "file"))
	ui.stage("  %10s %10s", "root", "initrd")
	for _, f := range s.From[:min(len(s.From), maxSpent)] {
		ui.stage("  %10s %10s  %s", size(f.Root.Bytes), size(f.Initrd.Bytes), f.From)
	}
	if rest := s.From[min(len(s.From), maxSpent):]; len(rest) > 0 {
		var r, i build.Total
		for _, f := range rest {
			r, i = plus(r, f.Root), plus(i, f.Initrd)
		}
		ui.stage("  %10s %10s  %d more (--json has all)", size(r.Bytes), size(i.Bytes), len(rest))
	}
}
