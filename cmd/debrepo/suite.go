package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// archiveKeyring has the keys of all releases; Debian's package debian-archive-keyring puts it there.
const archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

var suiteName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// suiteSources is a list of sources with one line: the suite, at the mirror that the machine has its own release from.
func (a *apt) suiteSources(ctx context.Context) (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	targets, err := a.run(ctx, "apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages")
	if err != nil {
		return "", err
	}
	mirror, err := mirrorOf(targets, codename(string(b)))
	if err != nil {
		return "", err
	}
	options := ""
	if _, err := os.Stat(archiveKeyring); err == nil {
		options = "[signed-by=" + archiveKeyring + "] "
	}
	return fmt.Sprintf("deb %s%s %s main\n", options, mirror, a.suite), nil
}

// codename is the release that an os-release file names; "" where it names none.
func codename(release string) string {
	for line := range strings.Lines(release) {
		if value, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return ""
}

// mirrorOf finds the mirror of a release in lines of address, release and component.
func mirrorOf(targets, release string) (string, error) {
	for line := range strings.Lines(targets) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == release && f[2] == "main" {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("--suite: the machine's own release %q is in none of its sources, so it is not known which mirror has the other", release)
}

// existing are the packages with one of each name's alternatives.
func (a *apt) existing(ctx context.Context, packages []string) ([]string, error) {
	text, err := a.run(ctx, "apt-cache", "pkgnames")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, name := range strings.Fields(text) {
		known[name] = true
	}
	var all []string
	for _, p := range packages {
		alternatives := strings.Split(p, "|")
		i := slices.IndexFunc(alternatives, func(name string) bool { return known[name] || name == "" })
		switch {
		case i < 0:
			all = append(all, alternatives[0]) // apt says that there is none
		case alternatives[i] != "":
			all = append(all, alternatives[i])
		}
	}
	return all, nil
}

// dropped are the names of the dropped packages that there are.
func (a *apt) dropped(ctx context.Context) ([]string, error) {
	text, err := a.run(ctx, "apt-cache", "pkgnames")
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(strings.Fields(text), func(name string) bool { return !isDropped(name) })
	if len(all) == 0 {
		return nil, errors.New("apt knows none of Debian's basic packages: are there sources in /etc/apt?")
	}
	slices.Sort(all)
	return all, nil
}
