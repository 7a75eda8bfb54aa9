package start

import (
	"fmt"
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
		if s.key == "ImageId" {
			w.imageID = s.value
		}
	case "ImageVersion":
		w.try(s.line, s.String(), func(m *lock.Manifest) { m.Image.Version = s.value })
	case "Format":
		w.format = s.value
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
	case "KernelInitrdModules", "KernelModulesInitrdInclude":
		w.initrdModules(s)
	case "Initrds", "KernelModulesInitrd", "KernelModulesInclude", "KernelModules":
		w.note(s.line, s.String(), "the initrd is made of sets.initrd: its packages, and the modules that are named there")
	default:
		if strings.HasSuffix(s.key, "Scripts") {
			w.scripts(s)
			return
		}
		w.note(s.line, s.String(), "it has no counterpart")
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
	case "Profiles":
		add(&w.profiles, s.words()...)
	case "Include", "Dependencies", "BuildSources", "BuildScripts":
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
