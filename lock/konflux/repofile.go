package konflux

import (
	"bufio"
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Repo is a repository as dnf's configuration has it. Options that are not
// there are nil. Variables are not expanded.
type Repo struct {
	ID, BaseURL            string
	GPGKey                 []string
	GPGCheck, RepoGPGCheck *bool
	Priority               *int
	// At is the file and line that the repository is from.
	At string
}

// refused is the first option that would change what is chosen and cannot be
// followed, or nothing.
func refused(o map[string]string) string {
	for _, k := range []string{"cost", "exclude", "excludepkgs", "includepkgs", "varsFromContainerfile", "varsFromImage"} {
		if v := o[k]; v != "" && (k != "cost" || v != "1000") {
			return k
		}
	}
	if on, err := boolOption(o, "module_hotfixes"); err != nil || on != nil && *on {
		return "module_hotfixes"
	}
	return ""
}

// addRepo makes a repository of dnf's options, unless it is switched off.
// Paths of keys are relative to base.
func (r *reader) addRepo(o map[string]string, idKey, base, at string) error {
	if enabled, err := boolOption(o, "enabled"); err != nil || enabled != nil && !*enabled {
		return err
	}
	repo, err := repoFrom(o, idKey, base)
	if err != nil {
		return err
	}
	repo.At = at
	r.in.Repos = append(r.in.Repos, repo)
	return nil
}

func repoFrom(o map[string]string, idKey, base string) (Repo, error) {
	r := Repo{ID: o[idKey]}
	if r.ID == "" {
		return r, fmt.Errorf("a repository without %s", idKey)
	}
	if k := refused(o); k != "" {
		return r, fmt.Errorf("repository %q: option %s is not supported yet, and without it another choice would be made", r.ID, k)
	}
	if urls := listOption(o["baseurl"]); len(urls) > 0 {
		r.BaseURL = urls[0]
	} else {
		return r, fmt.Errorf("repository %q has no baseurl; metalink and mirrorlist are not supported yet", r.ID)
	}
	for _, k := range listOption(o["gpgkey"]) {
		switch {
		case path.IsAbs(k):
			k = "file://" + k
		case !strings.Contains(k, "://"):
			k = path.Join(base, k)
		}
		r.GPGKey = append(r.GPGKey, k)
	}
	var err error
	if r.GPGCheck, err = boolOption(o, "gpgcheck"); err != nil {
		return r, fmt.Errorf("repository %q: %w", r.ID, err)
	}
	if r.RepoGPGCheck, err = boolOption(o, "repo_gpgcheck"); err != nil {
		return r, fmt.Errorf("repository %q: %w", r.ID, err)
	}
	if s := o["priority"]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return r, fmt.Errorf("repository %q: priority: %q is not a whole number", r.ID, s)
		}
		r.Priority = &n
	}
	return r, nil
}

// listOption splits a list as dnf does.
func listOption(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' || c == '\n' || c == '\t' })
}

// boolOption reads a switch as dnf does.
func boolOption(o map[string]string, key string) (*bool, error) {
	var on bool
	switch v := strings.ToLower(o[key]); v {
	case "":
		return nil, nil
	case "1", "yes", "true", "on":
		on = true
	case "0", "no", "false", "off":
	default:
		return nil, fmt.Errorf("%s: %q is neither yes nor no", key, v)
	}
	return &on, nil
}

// sectionID is the key under which parseRepofile keeps a section's name. No
// option can be called so.
const sectionID = "[id]"

// parseRepofile reads a .repo file: sections in brackets, KEY=VALUE lines,
// values continued on indented lines. A [main] section is dnf's own.
func (r *reader) parseRepofile(name string, b []byte) error {
	var section map[string]string
	var last, at string
	finish := func() error {
		if section == nil || section[sectionID] == "main" {
			return nil
		}
		if err := r.addRepo(section, sectionID, path.Dir(name), at); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		return nil
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for line := 1; sc.Scan(); line++ {
		here := fmt.Sprintf("%s:%d", name, line)
		text := strings.TrimSpace(sc.Text())
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case last != "" && (sc.Text()[0] == ' ' || sc.Text()[0] == '\t'):
			section[last] += "\n" + text
		case text[0] == '[':
			id, ok := strings.CutSuffix(text[1:], "]")
			if !ok || id == "" {
				return fmt.Errorf("%s: %q is not a [section]", here, text)
			}
			if err := finish(); err != nil {
				return err
			}
			section, last, at = map[string]string{sectionID: id}, "", here
		default:
			k, v, ok := strings.Cut(text, "=")
			k = strings.TrimSpace(k)
			if !ok || k == "" {
				return fmt.Errorf("%s: %q is neither [section] nor KEY=VALUE", here, text)
			}
			if section == nil {
				return fmt.Errorf("%s: %q before the first [section]", here, text)
			}
			last = k
			section[last] = strings.TrimSpace(v)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return finish()
}
