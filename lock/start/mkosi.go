package start

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"caisson/lock"
)

// setting is one assignment of an ini file as systemd and mkosi have them
// (mkosi(1), systemd.syntax(7)): "Key=value", going on in lines that begin
// with a blank. An empty value empties the list.
type setting struct {
	section, key, value string
	line                int
}

var iniSection = regexp.MustCompile(`^\[([^\[\]]+)\]$`)

// parseINI reads such a file.
func parseINI(name string, b []byte) ([]setting, error) {
	var out []setting
	section, open := "", false
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		text := strings.TrimRight(line, " \t\r\n")
		trimmed := strings.TrimSpace(text)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
			continue
		case text[0] == ' ' || text[0] == '\t':
			if !open {
				return nil, fmt.Errorf("%s:%d: a line that goes on, and nothing before it", name, n)
			}
			out[len(out)-1].value += "\n" + trimmed
			continue
		}
		if m := iniSection.FindStringSubmatch(text); m != nil {
			section, open = m[1], false
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if !ok || strings.TrimSpace(key) == "" {
			return nil, fmt.Errorf("%s:%d: %q is neither [Section] nor Key=Value", name, n, shorten(text))
		}
		if section == "" {
			return nil, fmt.Errorf("%s:%d: %q stands before the first [Section]", name, n, shorten(text))
		}
		out, open = append(out, setting{section, strings.TrimSpace(key), strings.TrimSpace(value), n}), true
	}
	return out, nil
}

// words are a list's values, which commas, blanks and lines divide.
func (s *setting) words() []string {
	return strings.FieldsFunc(s.value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
}

func (s *setting) String() string { return s.key + "=" + strings.ReplaceAll(s.value, "\n", " ") }

// mkosi reads an mkosi.conf, the drop-ins of mkosi.conf.d that match, and the
// trees beside it. A drop-in whose conditions cannot be told is left out.
func (d *draft) mkosi(name string, b []byte) error {
	settings, err := parseINI(name, b)
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	w := mkosiDraft{draft: d, dir: dir}
	w.apply(settings)
	drops, err := filepath.Glob(filepath.Join(dir, "mkosi.conf.d", "*.conf"))
	if err != nil {
		return err
	}
	slices.Sort(drops)
	for _, drop := range drops {
		b, err := readFile(drop)
		if err != nil {
			return err
		}
		settings, err := parseINI(drop, b)
		if err != nil {
			return err
		}
		d.at = drop
		if w.matches(settings) {
			w.apply(settings)
		}
	}
	w.beside()
	return nil
}

type mkosiDraft struct {
	*draft
	dir string
}

// beside looks for what mkosi takes by its name.
func (w *mkosiDraft) beside() {
	for _, n := range []string{"mkosi.skeleton", "mkosi.extra"} {
		if folderOf(filepath.Join(w.dir, n)) {
			w.at = filepath.Join(w.dir, n)
			w.place(1, n, w.at, "/", "")
		}
	}
	for _, n := range []struct{ name, why string }{
		{"mkosi.build", "write go, cargo or run steps"},
		{"mkosi.build.chroot", "write go, cargo or run steps"},
		{"mkosi.prepare", "a build has no network: what it fetches has to be an input"},
		{"mkosi.prepare.chroot", "a build has no network: what it fetches has to be an input"},
		{"mkosi.postinst", "what it does to the root can be a run step, with $ROOT in place of $BUILDROOT"},
		{"mkosi.postinst.chroot", "what it does can be a run step, chroot \"$ROOT\" …"},
		{"mkosi.finalize", "what it does to the root can be a run step, with $ROOT in place of $BUILDROOT"},
		{"mkosi.finalize.chroot", "what it does can be a run step, chroot \"$ROOT\" …"},
		{"mkosi.repart", "the disk has an ESP, the root and its hash tree: give sizes in image.disk, and space at run time in image.scratch"},
		{"mkosi.profiles", "a profile is a variant: write it under variants"},
		{"mkosi.images", "give each of these folders to `caisson init` by itself"},
		{"mkosi.presets", "give each of these folders to `caisson init` by itself"},
	} {
		if _, err := os.Stat(filepath.Join(w.dir, n.name)); !errors.Is(err, fs.ErrNotExist) {
			w.noteIn(filepath.Join(w.dir, n.name), 1, n.name, n.why)
		}
	}
}

// matches evaluates [Match] against what is known.
func (w *mkosiDraft) matches(settings []setting) bool {
	for _, s := range settings {
		if s.section != "Match" && s.section != "TriggerMatch" {
			continue
		}
		have := ""
		switch s.key {
		case "Distribution":
			have = w.distro.id
		case "Release":
			have = w.distro.release
		case "Architecture":
			have = "x86-64"
			if len(w.m.Arches) > 0 {
				have = strings.ReplaceAll(w.m.Arches[0], "x86_64", "x86-64")
			}
		}
		want := strings.TrimLeft(s.value, "|")
		not := strings.HasPrefix(want, "!")
		want = strings.TrimPrefix(want, "!")
		if have == "" && s.key == "Distribution" && !not && want != "" {
			continue // it says itself, for nothing else does
		}
		if s.section == "TriggerMatch" || have == "" || (have == want) == not {
			w.note(s.line, "["+s.section+"] "+s.String(), "this file is left out: it is for another case, or whether it is for this one cannot be told; give it to `caisson init` by itself if it is")
			return false
		}
	}
	return true
}

// apply takes over the settings of one file.
func (w *mkosiDraft) apply(settings []setting) {
	for i := range settings {
		s := &settings[i]
		switch {
		case s.section == "Match", s.section == "TriggerMatch":
		case s.section == "Distribution":
			w.distribution(s)
		case s.section == "Output":
			w.output(s)
		case s.section == "Content" || s.section == "Packages":
			if !w.packaging(s) && !w.system(s) {
				w.content(s)
			}
		case s.section == "Validation":
			w.note(s.line, s.String(), "keys are no input of a build: sign with `caisson build --secure-boot-key` or `caisson sign-boot`")
		case slices.Contains([]string{"Host", "Build", "Runtime", "Config", "UKI", "Include", "Preset"}, s.section):
			w.host(s)
		default:
			w.note(s.line, "["+s.section+"] "+s.String(), "the section is not known here")
		}
	}
}

func (w *mkosiDraft) distribution(s *setting) {
	switch s.key {
	case "Distribution":
		w.is(s.value, "")
		if slices.Contains([]string{"debian", "ubuntu", "kali", "arch", "opensuse", "postmarketos"}, strings.ToLower(s.value)) {
			w.note(s.line, s.String(), "the repositories of this distribution are not known here, and packages have to be RPMs: name the packages as another distribution calls them")
		}
	case "Release":
		w.is("", s.value)
	case "Architecture":
		w.arch(s.line, s.value)
	case "RepositoryKeyCheck", "RepositoryKeyFetch", "PackageManagerTrees", "CacheOnly":
	default:
		w.note(s.line, s.String(), "name repositories in rpm.repos")
	}
}

func (w *mkosiDraft) output(s *setting) {
	switch s.key {
	case "ImageId", "Output":
		w.called(s.value)
	case "ImageVersion":
		w.try(s.line, s.String(), func(m *lock.Manifest) { m.Image.Version = s.value })
	case "Format":
		if s.value != "disk" {
			w.note(s.line, s.String(), "an image is a disk, with netboot in image.output kernel, initrd and root in files beside it")
		}
	case "Seed":
		w.note(s.line, s.String(), "ids of partitions follow from the root hash")
	case "RepartDirectories", "SplitArtifacts", "Overlay", "SectorSize", "ImageVersionScript":
		w.note(s.line, s.String(), "it has no counterpart")
	}
}

// packaging takes over which packages there are.
func (w *mkosiDraft) packaging(s *setting) bool {
	switch s.key {
	case "Packages", "VolatilePackages":
		if s.value == "" {
			set(&w.m, lock.SetRoot, func(r *lock.ManifestSet) { r.Packages = nil })
		}
		w.packages(s.line, lock.SetRoot, s.words()...)
	case "BuildPackages":
		w.packages(s.line, lock.SetTools, s.words()...)
	case "InitrdPackages", "InitrdVolatilePackages":
		w.packages(s.line, lock.SetInitrd, s.words()...)
	case "RemovePackages":
		w.exclude(s.line, s.words()...)
	case "WithRecommends":
		on := yes(s.value)
		w.m.RPM.WeakDeps = &on
	case "WithDocs":
		on := yes(s.value)
		w.m.Image.Docs = &on
	case "CleanPackageMetadata", "Bootable", "Autologin", "MakeInitrd":
		if s.key == "Autologin" && yes(s.value) {
			w.note(s.line, s.String(), "write a drop-in of the getty into an overlay, for a debug variant")
		}
		if s.key == "CleanPackageMetadata" && yes(s.value) {
			w.note(s.line, s.String(), "the package database stays: it says what is in the image")
		}
	default:
		return false
	}
	return true
}

func yes(s string) bool {
	return slices.Contains([]string{"1", "yes", "true", "on", "y", "t"}, strings.ToLower(s))
}

// system takes over what is written into the root.
func (w *mkosiDraft) system(s *setting) bool {
	change := map[string]func(m *lock.Manifest){
		"Locale":   func(m *lock.Manifest) { m.Image.Locale = s.value },
		"Timezone": func(m *lock.Manifest) { m.Image.Timezone = s.value },
		"Hostname": func(m *lock.Manifest) { m.Image.Hostname = s.value },
		"RemoveFiles": func(m *lock.Manifest) {
			for _, p := range s.words() {
				add(&m.Image.Remove, path.Clean("/"+p))
			}
		},
	}[s.key]
	switch {
	case change != nil:
		w.try(s.line, s.String(), change)
	case s.key == "RootPassword":
		hash, hashed := strings.CutPrefix(s.value, "hashed:")
		if p := w.password(s.line, "root", hash, hashed); p != "" {
			w.user(s.line, "RootPassword", lock.User{Name: "root", Password: p})
		}
	case s.key == "RootShell":
		w.user(s.line, s.String(), lock.User{Name: "root", Shell: s.value})
	default:
		return false
	}
	return true
}

func (w *mkosiDraft) content(s *setting) {
	switch s.key {
	case "KernelCommandLine":
		w.cmdline(s.line, s.value)
	case "SkeletonTrees", "ExtraTrees":
		for _, t := range strings.FieldsFunc(s.value, func(r rune) bool { return r == ',' || r == '\n' }) {
			from, to, _ := strings.Cut(strings.TrimSpace(t), ":")
			w.place(s.line, s.key+"="+t, filepath.Join(w.dir, filepath.FromSlash(from)), "/"+to, "")
		}
	case "Bootloader":
		switch s.value {
		case "systemd-boot":
			w.m.Image.Boot.Loader = lock.LoaderSystemdBoot
		case "uki", "none", "uki-signed":
		default:
			w.note(s.line, s.String(), "image.boot.loader is uki, systemd-boot or shim")
		}
	case "ShimBootloader":
		if s.value != "none" {
			w.m.Image.Boot.Loader = lock.LoaderShim
		}
	case "SourceDateEpoch":
		w.epoch(s, s.value)
	case "Environment":
		for _, e := range strings.Fields(s.value) {
			if v, ok := strings.CutPrefix(e, "SOURCE_DATE_EPOCH="); ok {
				w.epoch(s, v)
				continue
			}
			name, _, _ := strings.Cut(e, "=") // its value may be a secret
			w.note(s.line, "Environment="+name, "steps have a fixed environment: set it in the step that needs it")
		}
	case "Initrds", "KernelModulesInitrd", "KernelModulesInclude", "KernelModulesInitrdInclude", "KernelModules":
		w.note(s.line, s.String(), "the initrd is made of sets.initrd: its packages, and the modules that are named there")
	default:
		why := "it has no counterpart"
		if strings.HasSuffix(s.key, "Scripts") {
			why = "what it does to the root can be a run step, with $ROOT in place of $BUILDROOT"
		}
		w.note(s.line, s.String(), why)
	}
}

func (w *mkosiDraft) epoch(s *setting, value string) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		w.note(s.line, s.String(), "it is not a number of seconds")
		return
	}
	w.try(s.line, s.String(), func(m *lock.Manifest) { m.Epoch = &n })
}

// host passes over how mkosi itself works, and notes what changes the image.
func (w *mkosiDraft) host(s *setting) {
	switch s.key {
	case "Include", "Dependencies", "Profiles", "BuildSources", "BuildScripts":
		w.note(s.line, s.String(), "give what it names to `caisson init`, or write steps for it")
	case "ToolsTreePackages":
		w.packages(s.line, lock.SetTools, s.words()...)
	case "Environment":
		w.content(s)
	case "WithNetwork":
		if yes(s.value) {
			w.note(s.line, s.String(), "a build has no network: what a step fetches has to be an input")
		}
	}
}
