package main

import (
	"errors"
	"fmt"
	"strings"

	"caisson/lock"
	"caisson/lock/digest"
)

// upgradeAnswer is what --upgrade --json prints.
type upgradeAnswer struct {
	From    int           `json:"from"`
	To      int           `json:"to"`
	Before  digest.Digest `json:"before"` // of the lock
	After   digest.Digest `json:"after"`
	Written bool          `json:"written"`
	Changes []lock.Change `json:"changes"`
}

// upgradeLock makes a lock one of this Caisson's revision, and says what that
// changes of its image.
func upgradeLock(ui *ui, o *lockOptions) error {
	if o.konflux.given() || isYAML(o.out) {
		return usageError{errors.New("--upgrade is for a lock: an rpms.lock.yaml has no revision")}
	}
	l, before, err := o.readLock()
	if err != nil {
		return err
	}
	upgraded, err := l.Upgraded()
	if err != nil {
		return &codeError{fmt.Errorf("%s: %w", o.out, err), exitLock, newerHint}
	}
	after, err := lock.Format(upgraded)
	if err != nil {
		return err
	}
	a := upgradeAnswer{
		From: l.Revision, To: upgraded.Revision, Before: digest.Of(before), After: digest.Of(after),
		Changes: l.Changes(), Written: l.Revision != upgraded.Revision && !o.dryRun,
	}
	if a.Written {
		if err := writeFile(o.out, after); err != nil {
			return err
		}
	}
	if o.json {
		return ui.json(a)
	}
	a.show(ui, o)
	return nil
}

// concern is how a person is told whom a change concerns.
var concern = map[lock.Concern]string{
	lock.Concerned: "changes this image", lock.MayConcern: "may change this image", lock.NotConcerned: "does not concern this lock",
}

func (a *upgradeAnswer) show(ui *ui, o *lockOptions) {
	if a.From == a.To {
		ui.stage("%s is of revision %d already, which is this Caisson's: nothing to do", o.out, a.To)
		return
	}
	revision := 0
	for _, c := range a.Changes {
		if c.Revision != revision {
			revision = c.Revision
			ui.print("revision %d", revision)
		}
		for _, line := range wrap(c.What, 76) {
			ui.print("  %s", line)
		}
		for _, line := range wrap(concern[c.Concerns]+": "+c.Why, 74) {
			ui.print("    %s", line)
		}
	}
	if !a.Written {
		ui.stage("%s is as it was: this was a dry run", o.out)
		return
	}
	ui.stage("%s: revision %d is now %d, and every choice is as it was", o.out, a.From, a.To)
	ui.stage("the lock was %s and is %s", a.Before, a.After)
	ui.stage("what was signed stays about the old one: images that were made of it are verified with it, by a Caisson of revision %d", a.From)
	ui.next(append([]string{"build", "--out", "out"}, o.args()...)...)
}

// wrap breaks a text into lines of at most that many bytes, where words end.
func wrap(text string, width int) []string {
	var lines []string
	for w := range strings.FieldsSeq(text) {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(w) <= width {
			lines[n-1] += " " + w
		} else {
			lines = append(lines, w)
		}
	}
	return lines
}
