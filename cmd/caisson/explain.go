package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/prefetch"
)

func newExplainCommand(ui *ui) *cobra.Command {
	var s sources
	c := &cobra.Command{
		Use:   "explain NAME",
		Short: "Tell why an input is in the lock",
		Long: `Explain prints, for a package, module, crate or file of the lock, the chain from
a request of the manifest to it, for every set that has it; and whose OpenPGP
key a package is signed with, if the store has it.`,
		Example: "  caisson explain libssl3",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runExplain(ui, &s, args[0]) },
	}
	s.flags(c)
	return c
}

func runExplain(ui *ui, s *sources, name string) error {
	l, _, err := s.readLock()
	if err != nil {
		return err
	}
	store, err := s.layered()
	if err != nil {
		store = nil // the lock alone is enough
	}
	found := false
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if !named(in, name) {
			continue
		}
		found = true
		ui.print("%s %s (%s)", in.Kind, in.Name, in.SHA256)
		if store != nil {
			if sig, ok := prefetch.Signer(l, store, in); ok {
				ui.print("  signed by %s", keyName(sig))
			}
		}
		if in.Verified != nil {
			ui.print("  %s signed by %s", in.Verified.What, in.Verified.By())
		}
		for _, r := range trustedBy(l, in) {
			ui.print("  trusted by repository %s", r)
		}
		for _, u := range in.For {
			for _, line := range chain(l, in, u) {
				ui.print("  %s", line)
			}
		}
	}
	if !found {
		return fmt.Errorf("%s has no input called %q", s.lockFile, name)
	}
	return nil
}

// trustedBy names the repositories that trust a key of a key file.
func trustedBy(l *lock.Lock, in *lock.Input) []string {
	var out []string
	for _, r := range l.Repos {
		if slices.ContainsFunc(in.Fingerprints(), func(f string) bool { return slices.Contains(r.Keys, f) }) {
			out = append(out, r.ID+" ("+r.Arch+")")
		}
	}
	return out
}

// keyName is a key as people know it.
func keyName(s prefetch.Signature) string {
	if s.UserID == "" {
		return s.Fingerprint
	}
	return fmt.Sprintf("%s (%s)", s.Fingerprint, s.UserID)
}

// named tells whether a person could call the input that.
func named(in *lock.Input, name string) bool {
	switch {
	case in.Name == name:
		return true
	case in.RPM != nil:
		return in.RPM.Name == name || in.RPM.Name+"."+in.RPM.Arch == name
	case in.Go != nil:
		return in.Go.Module == name || in.Go.Module+"@"+in.Go.Version == name
	case in.Kind == lock.KindCrate:
		crate, _, _ := strings.Cut(in.URL, "/")
		return crate == name
	case in.Git != nil:
		return in.URL == name || in.Git.Commit == name || strings.TrimSuffix(in.Name, "@"+in.Git.Commit) == name
	case in.OCI != nil:
		return strings.HasPrefix(in.Name, name+"/")
	}
	return false
}

// chain is the way from the request down to the input, in one set.
func chain(l *lock.Lock, in *lock.Input, u lock.Use) []string {
	where := u.Set
	if u.Arch != "" {
		where += " (" + u.Arch + ")"
	}
	var steps []string
	at, seen := in, map[string]bool{in.Name: true}
	for u.Dep != "" {
		steps = append(steps, u.By+" needs "+needed(at, u))
		parent := parentOf(l, at, u)
		if parent == nil || seen[parent.Name] {
			return report(where, steps)
		}
		seen[parent.Name] = true
		i := slices.IndexFunc(parent.For, func(p lock.Use) bool { return p.Set == u.Set && p.Arch == u.Arch })
		if i < 0 {
			return report(where, steps)
		}
		at, u = parent, parent.For[i]
	}
	steps = append(steps, "asked for: "+u.By)
	return report(where, steps)
}

// needed is how the one who brought an input calls it: by the dependency that
// it answers, or, where that is the file which names it, by its own name.
func needed(in *lock.Input, u lock.Use) string {
	switch {
	case in.Go != nil:
		return in.Go.Module + "@" + in.Go.Version + " (" + u.Dep + ")"
	case in.Kind == lock.KindCrate || in.Kind == lock.KindGit:
		return in.Name + " (" + u.Dep + ")"
	}
	return u.Dep
}

// parentOf is the input that brought another, or nil: a package, a module, a
// crate or the source itself, as Use.By names it. A git repository's packages
// have no input of their own.
func parentOf(l *lock.Lock, in *lock.Input, u lock.Use) *lock.Input {
	switch {
	case in.RPM != nil:
		return l.Find(lock.KindRPM, u.By)
	case in.Go != nil:
		if m := l.Find(lock.KindGo, u.By+".mod"); m != nil {
			return m
		}
	default:
		for _, c := range l.Of("", u.Set) {
			if c.Kind == lock.KindCrate && c.URL == strings.Replace(u.By, " ", "/", 1) {
				return c
			}
		}
	}
	return l.Find(lock.KindTree, u.By)
}

func report(where string, steps []string) []string {
	slices.Reverse(steps)
	out := []string{where}
	for i, s := range steps {
		out = append(out, strings.Repeat("  ", i+1)+s)
	}
	return out
}
