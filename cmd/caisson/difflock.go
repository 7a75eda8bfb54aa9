package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"caisson/lock"
	"caisson/lock/rpmmd"
)

// lockDiff is in what two locks differ.
type lockDiff struct {
	known *lock.AdvisoryIndex

	Added   []string     `json:"added,omitempty"`
	Removed []string     `json:"removed,omitempty"`
	Changed []lockChange `json:"changed,omitempty"`
	// Settings are the parts of the lock beside its inputs that differ, as
	// its JSON calls them.
	Settings []string `json:"settings,omitempty"`
}

// lockChange is an input that is in both locks, and not the same.
type lockChange struct {
	Input string `json:"input"`
	Old   string `json:"old"`
	New   string `json:"new"`
	// Direction is "upgraded" or "downgraded" where the versions have an
	// order, "moved" where a git tag or branch names another commit, and empty
	// where something else is different.
	Direction string `json:"direction,omitempty"`
	// Advisories are what the new lock's repositories say of an upgrade.
	Advisories []lock.Advisory `json:"advisories,omitempty"`
}

func (c lockChange) String() string {
	s := c.Input + ": " + c.Old + " -> " + c.New
	if c.Direction != "" {
		s += " (" + c.Direction + ")"
	}
	return s
}

func (d *lockDiff) empty() bool {
	return len(d.Added)+len(d.Removed)+len(d.Changed)+len(d.Settings) == 0
}

func (d *lockDiff) show(ui *ui) {
	for _, s := range d.Added {
		ui.print("+ %s", s)
	}
	for _, s := range d.Removed {
		ui.print("- %s", s)
	}
	for _, c := range d.Changed {
		ui.print("* %s", c)
		for _, a := range c.Advisories {
			ui.print("    %s", advisoryLine(a))
		}
	}
	for _, s := range d.Settings {
		ui.print("* settings: %s", s)
	}
}

// compareLocks compares the inputs by what they are, whatever their version,
// and everything else by its JSON. known may be nil.
func compareLocks(a, b *lock.Lock, known *lock.AdvisoryIndex) (*lockDiff, error) {
	d := &lockDiff{known: known}
	old, now := byIdentity(a), byIdentity(b)
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		d.compare(id, old[id], now[id])
	}
	var err error
	d.Settings, err = settings(a, b)
	return d, err
}

// compare compares the inputs of one identity: mostly one on each side.
func (d *lockDiff) compare(id string, old, now []*lock.Input) {
	only := func(list, other []*lock.Input) []*lock.Input {
		return slices.DeleteFunc(slices.Clone(list), func(in *lock.Input) bool {
			return slices.ContainsFunc(other, func(o *lock.Input) bool { return reflect.DeepEqual(in, o) })
		})
	}
	gone, came := only(old, now), only(now, old)
	for len(gone) > 0 && len(came) > 0 {
		was, is := describeChange(gone[0], came[0])
		c := lockChange{Input: id, Old: was, New: is, Direction: direction(gone[0], came[0])}
		if c.Direction == upgraded && came[0].RPM != nil && d.known != nil {
			c.Advisories = d.known.For(gone[0].RPM, came[0].RPM)
		}
		d.Changed = append(d.Changed, c)
		gone, came = gone[1:], came[1:]
	}
	for _, in := range gone {
		d.Removed = append(d.Removed, in.Kind+" "+in.Name+setsOf(in))
	}
	for _, in := range came {
		d.Added = append(d.Added, in.Kind+" "+in.Name+setsOf(in))
	}
}

// describeChange says what is different, most telling first: the version, the
// bytes, the sets, or something else of the entry.
func describeChange(a, b *lock.Input) (was, is string) {
	for _, f := range []func(*lock.Input) string{
		versionOf, func(in *lock.Input) string { return in.SHA256.String() }, usesOf, func(in *lock.Input) string { return in.Repo + " " + in.URL },
	} {
		if was, is = f(a), f(b); was != is {
			return was, is
		}
	}
	// The same bytes for the same sets: something else is said of them.
	x, errA := parts(a)
	y, errB := parts(b)
	if errA != nil || errB != nil {
		return "one entry", "another for the same bytes"
	}
	for _, k := range slices.Sorted(maps.Keys(y)) {
		if string(x[k]) != string(y[k]) {
			return k + " " + cmp.Or(string(x[k]), "none"), string(y[k])
		}
	}
	return "more is said of it", "less"
}

// The directions of a change.
const (
	upgraded   = "upgraded"
	downgraded = "downgraded"
	moved      = "moved"
)

// direction tells an upgrade from a downgrade, and a ref that has moved from
// one that was changed.
func direction(a, b *lock.Input) string {
	c := 0
	switch {
	case a.RPM != nil && b.RPM != nil:
		c = evrOf(a.RPM).Compare(evrOf(b.RPM))
	case a.Go != nil && b.Go != nil:
		c = semver.Compare(a.Go.Version, b.Go.Version)
	case a.Kind == lock.KindCrate && b.Kind == lock.KindCrate:
		c = semver.Compare("v"+versionOf(a), "v"+versionOf(b))
	}
	switch {
	case a.Git != nil && b.Git != nil && a.Git.Ref == b.Git.Ref && a.Git.Commit != b.Git.Commit:
		return moved
	case c < 0:
		return upgraded
	case c > 0:
		return downgraded
	}
	return ""
}

func evrOf(p *lock.RPM) rpmmd.EVR {
	return rpmmd.EVR{Epoch: p.Epoch, Version: p.Version, Release: p.Release}
}

// byIdentity groups the inputs by what stays when a version changes.
func byIdentity(l *lock.Lock) map[string][]*lock.Input {
	out := map[string][]*lock.Input{}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		id := in.Kind + " " + identity(in)
		out[id] = append(out[id], in)
	}
	return out
}

func identity(in *lock.Input) string {
	switch {
	case in.RPM != nil:
		return in.RPM.Name + "." + in.RPM.Arch
	case in.Go != nil:
		return in.Go.Module + path.Ext(in.Name)
	case in.Kind == lock.KindCrate:
		return strings.TrimSuffix(strings.TrimSuffix(in.Name, ".crate"), "-"+versionOf(in))
	case in.Git != nil:
		return strings.TrimSuffix(in.Name, "@"+in.Git.Commit)
	}
	return in.Name
}

// versionOf is the input's version, where it has one.
func versionOf(in *lock.Input) string {
	switch {
	case in.RPM != nil:
		return in.RPM.EVR()
	case in.Go != nil:
		return in.Go.Version
	case in.Kind == lock.KindCrate:
		return crateVersion(strings.TrimSuffix(in.Name, ".crate"))
	case in.Git != nil:
		return in.Git.Commit
	case in.OCI != nil:
		return in.SHA256.String()
	}
	return ""
}

// crateVersion is what follows the first hyphen that a digit follows and that
// makes a version with dots: crates are called NAME-1.2.3.
func crateVersion(name string) string {
	for i := range len(name) - 1 {
		if rest := name[i+1:]; name[i] == '-' && rest[0] >= '0' && rest[0] <= '9' && strings.Count(rest, ".") >= 2 {
			return rest
		}
	}
	return ""
}

// setsOf names the sets of an input, in brackets.
func setsOf(in *lock.Input) string {
	if s := usesOf(in); s != "" {
		return " (" + s + ")"
	}
	return ""
}

// usesOf names the sets and payloads that an input serves.
func usesOf(in *lock.Input) string {
	var out []string
	for _, u := range in.For {
		if u.Set != "" {
			out = append(out, strings.TrimSpace(u.Set+" "+u.Arch))
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// settings names the top-level parts that differ, but for the inputs.
func settings(a, b *lock.Lock) ([]string, error) {
	x, err := parts(a)
	if err != nil {
		return nil, err
	}
	y, err := parts(b)
	if err != nil {
		return nil, err
	}
	delete(x, "inputs")
	delete(y, "inputs")
	return differing("", x, y), nil
}

// differing names the keys whose values differ, in objects the keys of those,
// with the values where they are short.
func differing(prefix string, x, y map[string]json.RawMessage) []string {
	all := maps.Clone(x)
	maps.Copy(all, y)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if string(x[k]) == string(y[k]) {
			continue
		}
		var xs, ys map[string]json.RawMessage
		if json.Unmarshal(x[k], &xs) == nil && json.Unmarshal(y[k], &ys) == nil {
			out = append(out, differing(prefix+k+".", xs, ys)...)
			continue
		}
		if short := len(x[k])+len(y[k]) < 400; short {
			out = append(out, fmt.Sprintf("%s: %s -> %s", prefix+k, cmp.Or(string(x[k]), "none"), cmp.Or(string(y[k]), "none")))
		} else {
			out = append(out, prefix+k)
		}
	}
	return out
}

// parts is a value by the top-level keys of its JSON.
func parts(l any) (map[string]json.RawMessage, error) {
	b, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	out := map[string]json.RawMessage{}
	return out, json.Unmarshal(b, &out)
}
