package main

import (
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"caisson/lock"
	"caisson/lock/digest"
)

// advisoryLine is an advisory in a line: what it is called, how bad it is, what
// it says, and the vulnerabilities that it names.
func advisoryLine(a lock.Advisory) string {
	var words, cves []string
	for _, w := range []string{a.ID, a.Severity, a.Type} {
		if w != "" && w != "None" {
			words = append(words, w)
		}
	}
	line := strings.Join(words, " ")
	if a.Title != "" {
		line += ": " + a.Title
	}
	for _, r := range a.References {
		if r.Type == "cve" {
			cves = append(cves, r.ID)
		}
	}
	if len(cves) > 0 {
		line += " (" + strings.Join(cves, ", ") + ")"
	}
	return line
}

// advisories reads what the lock's repositories say of updates, as far as the
// store has it; nil where they say nothing.
func (s *sources) advisories(ui *ui, l *lock.Lock) *lock.AdvisoryIndex {
	if !slices.ContainsFunc(l.Inputs, func(in lock.Input) bool { return in.Kind == lock.KindRepodata && path.Base(in.Name) == "updateinfo" }) {
		return nil
	}
	st, err := s.layered()
	var index *lock.AdvisoryIndex
	if err == nil {
		index, err = lock.Advisories(l, func(d digest.Digest) (io.ReadCloser, error) {
			name, err := verifiedPath(st)(d)
			if err != nil {
				return nil, err
			}
			return os.Open(name)
		})
	}
	if err != nil {
		ui.stage("without advisories: %v", err)
		return nil
	}
	return index
}
