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
	"strings"

	"caisson/lock"
)

// mkosiDraft is what is known of an image of mkosi while its files are read.
type mkosiDraft struct {
	*draft
	dir             string
	format, imageID string
	profiles        []string // those that are chosen
	pendingScripts  []mkosiScript
	depth           int // of folders in folders
}

// maxDepth is how deep drop-ins may lie in one another.
const maxDepth = 8

// mkosi reads an mkosi.conf, the drop-ins of mkosi.conf.d that match, the
// profiles that are chosen, and the trees, scripts and partitions beside it. A
// file whose conditions cannot be told is left out.
func (d *draft) mkosi(name string, b []byte) error {
	settings, err := parseINI(name, b)
	if err != nil {
		return err
	}
	w := &mkosiDraft{draft: d, dir: filepath.Dir(name), profiles: d.profiles}
	for _, s := range settings { // they decide what else is read
		if s.section == "Config" && s.key == "Profiles" {
			w.profiles = append(slices.Clone(w.profiles), s.words()...)
		}
	}
	if w.matches(settings) {
		w.apply(settings)
	}
	if err := w.dropIns(filepath.Join(w.dir, "mkosi.conf.d")); err != nil {
		return err
	}
	if err := w.readProfiles(); err != nil {
		return err
	}
	if err := w.partitions(filepath.Join(w.dir, "mkosi.repart")); err != nil {
		return err
	}
	w.beside(w.dir)
	w.addScripts()
	if d.m.RPM.WeakDeps == nil { // mkosi's WithRecommends= is off
		off := false
		d.m.RPM.WeakDeps = &off
	}
	return nil
}

// dropIns applies the files of a folder mkosi.conf.d, in order: NAME.conf, and
// NAME/mkosi.conf with what is beside that.
func (w *mkosiDraft) dropIns(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries { // sorted
		full := filepath.Join(dir, e.Name())
		switch {
		case folderOf(full):
			err = w.folder(full)
		case strings.HasSuffix(e.Name(), ".conf"):
			_, err = w.file(full)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// folder applies a drop-in, or a profile, that is a folder.
func (w *mkosiDraft) folder(dir string) error {
	name := filepath.Join(dir, "mkosi.conf")
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		w.noteIn(dir, 1, filepath.Base(dir), "it has no mkosi.conf")
		return nil
	}
	if w.depth >= maxDepth {
		return fmt.Errorf("%s: drop-ins lie more than %d folders deep in one another: is one of them a link to a folder that it is in?", name, maxDepth)
	}
	outer := w.dir
	w.dir = dir
	w.depth++
	defer func() { w.dir = outer; w.depth-- }()
	matches, err := w.file(name)
	if err != nil || !matches {
		return err
	}
	w.beside(dir)
	return w.dropIns(filepath.Join(dir, "mkosi.conf.d"))
}

// file applies one further file, if it matches.
func (w *mkosiDraft) file(name string) (bool, error) {
	b, err := readFile(name)
	if err != nil {
		return false, err
	}
	settings, err := parseINI(name, b)
	if err != nil {
		return false, err
	}
	w.at = name
	if !w.matches(settings) {
		return false, nil
	}
	w.apply(settings)
	return true, nil
}

// readProfiles applies the profiles that are chosen, and notes the others.
func (w *mkosiDraft) readProfiles() error {
	dir := filepath.Join(w.dir, "mkosi.profiles")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var all []string
	for _, e := range entries {
		full, name := filepath.Join(dir, e.Name()), strings.TrimSuffix(e.Name(), ".conf")
		all = append(all, name)
		switch {
		case !slices.Contains(w.profiles, name):
			w.noteIn(full, 1, "profile "+name, "it was not chosen: `caisson init --profile "+quote(name)+"` takes it in, and what differs with it can be a variant")
		case folderOf(full):
			err = w.folder(full)
		default:
			_, err = w.file(full)
		}
		if err != nil {
			return err
		}
	}
	for _, p := range w.draft.profiles {
		w.named[p] = w.named[p] || slices.Contains(all, p)
	}
	return nil
}

// beside looks for what mkosi takes by its name.
func (w *mkosiDraft) beside(dir string) {
	for _, n := range []string{"mkosi.skeleton", "mkosi.extra"} {
		if folderOf(filepath.Join(dir, n)) {
			w.at = filepath.Join(dir, n)
			w.place(1, n, w.at, "/", "")
		}
	}
	for _, n := range []string{"mkosi.postinst", "mkosi.finalize"} {
		for _, ending := range []string{"", ".chroot"} {
			name := filepath.Join(dir, n+ending)
			if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
				w.pendingScripts = append(w.pendingScripts, mkosiScript{name, ending != "", n == "mkosi.finalize"})
			}
		}
	}
	for _, n := range []struct{ name, why string }{
		{"mkosi.build", "write go, cargo or run steps"},
		{"mkosi.build.chroot", "write go, cargo or run steps"},
		{"mkosi.prepare", "a build has no network: what it fetches has to be an input"},
		{"mkosi.prepare.chroot", "a build has no network: what it fetches has to be an input"},
		{"mkosi.images", "give each of these folders to `caisson init` by itself"},
		{"mkosi.presets", "give each of these folders to `caisson init` by itself"},
		{"mkosi.local.conf", "it is for one machine: what the image needs of it belongs into mkosi.conf"},
		{"mkosi.rootpw", "put the hash of the password into image.users"},
		{"mkosi.passphrase", "nothing of the image is encrypted when it is built; image.scratch is, when it is started"},
	} {
		if _, err := os.Stat(filepath.Join(dir, n.name)); !errors.Is(err, fs.ErrNotExist) {
			w.noteIn(filepath.Join(dir, n.name), 1, n.name, n.why)
		}
	}
}

// matches evaluates the conditions of a file: all must be met, and of those
// with a "|" one of their section. A distribution is settled by the first file
// that is for one, where none said so before.
func (w *mkosiDraft) matches(settings []setting) bool {
	var triggers []*setting
	triggered := false
	settle := ""
	for i := range settings {
		s := &settings[i]
		if s.section != "Match" && s.section != "TriggerMatch" {
			continue
		}
		want, trigger := strings.CutPrefix(s.value, "|")
		if trigger = trigger || s.section == "TriggerMatch"; trigger {
			triggers = append(triggers, s)
		}
		met, known := w.met(s.key, want)
		if s.key == "Distribution" && w.distro.id == "" && !strings.HasPrefix(want, "!") && settle == "" {
			settle, met, known = want, true, true
		}
		triggered = triggered || trigger && met && known
		if !trigger && (!met || !known) {
			w.leftOut(s)
			return false
		}
	}
	if len(triggers) > 0 && !triggered {
		w.leftOut(triggers[0])
		return false
	}
	if settle != "" {
		w.is(settle, "")
		w.note(1, "[Match] Distribution="+settle, "no file says which distribution the image is of, and this one is the first that is for one: say another in mkosi.conf, [Distribution], and run it again")
	}
	return true
}

func (w *mkosiDraft) leftOut(s *setting) {
	w.note(s.line, "["+s.section+"] "+s.String(), "this file is left out: it is for another case, or whether it is for this one cannot be told; give it to `caisson init` by itself if it is")
}

// met tells whether a condition is, where that can be known here.
func (w *mkosiDraft) met(key, want string) (met, known bool) {
	want, not := strings.CutPrefix(want, "!")
	have := ""
	switch key {
	case "Distribution":
		have = w.distro.id
	case "Release":
		have = w.distro.release
	case "Architecture":
		have = "x86-64"
		if len(w.m.Arches) > 0 {
			have = strings.ReplaceAll(strings.ReplaceAll(w.m.Arches[0], "x86_64", "x86-64"), "aarch64", "arm64")
		}
	case "Profiles":
		return slices.Contains(w.profiles, want) != not, true
	case "ImageId":
		have = w.imageID
	case "Format":
		have = w.format
		if have == "" {
			have = "disk"
		}
	case "Bootable":
		return (want == "auto" || yes(want)) != not, true
	case "PathExists":
		_, err := os.Stat(filepath.Join(w.dir, filepath.FromSlash(want)))
		return (err == nil) != not, true
	}
	return (have == want) != not, have != ""
}

var moduleWord = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// initrdModules takes over the modules that are named; patterns and sets of
// them are noted.
func (w *mkosiDraft) initrdModules(s *setting) {
	for _, name := range s.words() {
		if name == "default" || name == "host" || !moduleWord.MatchString(name) {
			w.note(s.line, s.key+"="+name, "modules are named one by one: add what it stands for to sets.initrd.modules")
			continue
		}
		w.try(s.line, s.key+"="+name, func(m *lock.Manifest) {
			set(m, lock.SetInitrd, func(i *lock.ManifestSet) { add(&i.Modules, name) })
		})
	}
}

// partitions takes over what mkosi.repart says of the ESP and of the root.
func (w *mkosiDraft) partitions(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.conf"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := readFile(name)
		if err != nil {
			return err
		}
		settings, err := parseINI(name, b)
		if err != nil {
			return err
		}
		w.at = name
		kind := ""
		for _, s := range settings {
			if s.key == "Type" {
				kind = s.value
			}
		}
		for i := range settings {
			w.partition(kind, &settings[i])
		}
	}
	return nil
}

// partition takes over one setting of a partition.
func (w *mkosiDraft) partition(kind string, s *setting) {
	root := kind == "root" || strings.HasPrefix(kind, "root-") && !strings.Contains(kind, "verity")
	switch {
	case kind != "esp" && !root && !strings.Contains(kind, "-verity"):
		if s.key == "Type" {
			w.note(s.line, s.String(), "the disk has an ESP, the root and its hash tree; space at run time is image.scratch")
		}
	case s.key == "Type", s.key == "CopyFiles", s.key == "Verity", s.key == "VerityMatchKey", s.key == "Minimize", s.key == "Label", kind == "esp" && s.key == "Format":
		// So it is, always.
	case kind == "esp" && s.key == "SizeMinBytes":
		w.try(s.line, s.String(), func(m *lock.Manifest) { m.Image.Disk.ESP = sizeText(s.value) })
	case root && s.key == "Format":
		w.try(s.line, s.String(), func(m *lock.Manifest) { m.Image.Root.Format = s.value })
	case root && s.key == "SizeMinBytes":
		w.try(s.line, s.String(), func(m *lock.Manifest) { m.Image.Disk.Root = sizeText(s.value) })
	default:
		w.note(s.line, s.String(), "the partition is as large as what is in it, or as image.disk says")
	}
}

var systemdSize = regexp.MustCompile(`^([0-9]+)([KMGkmg])(i?B)?$`)

// sizeText is a size as a manifest has it; systemd's are powers of 1024.
func sizeText(s string) string {
	if m := systemdSize.FindStringSubmatch(strings.ReplaceAll(s, " ", "")); m != nil {
		return m[1] + strings.ToUpper(m[2]) + "iB"
	}
	return s
}

// mkosiScript is a script that changes the root.
type mkosiScript struct {
	name             string
	chroot, finalize bool
}

// scripts takes over scripts that are named by a setting.
func (w *mkosiDraft) scripts(s *setting) {
	if s.key != "PostInstallationScripts" && s.key != "FinalizeScripts" {
		why := "what it does has to be inputs and go, cargo or run steps: a build has no network"
		if s.key == "CleanScripts" || s.key == "SyncScripts" {
			return
		}
		w.note(s.line, s.String(), why)
		return
	}
	for _, p := range s.words() {
		name := filepath.Join(w.dir, filepath.FromSlash(p))
		if st, err := os.Stat(name); err != nil || !st.Mode().IsRegular() {
			w.note(s.line, s.key+"="+p, "there is no "+shorten(name)+" here")
			continue
		}
		w.pendingScripts = append(w.pendingScripts, mkosiScript{name, strings.HasSuffix(p, ".chroot"), s.key == "FinalizeScripts"})
	}
}

// addScripts makes run steps of the scripts, in mkosi's order: those that
// finish the root come last.
func (w *mkosiDraft) addScripts() {
	for _, finalize := range []bool{false, true} {
		for _, s := range w.pendingScripts {
			if s.finalize == finalize {
				w.addScript(s)
			}
		}
	}
}

var shebang = regexp.MustCompile(`^#!\s*(\S+/(?:env\s+)?)?(bash|sh|dash)\b[^\n]*\n`)

// addScript makes a step of one script: it has the variables that mkosi gives
// it, as far as they mean something in a build.
func (w *mkosiDraft) addScript(s mkosiScript) {
	base := filepath.Base(s.name)
	b, err := readFile(s.name)
	if err == nil && !shebang.Match(b) {
		err = errors.New("it is no script of bash or sh: write what it does to the root as a run step")
	}
	rel, relErr := w.relative(s.name)
	if err := errors.Join(err, relErr); err != nil {
		w.noteIn(s.name, 1, base, err.Error())
		return
	}
	n := w.inputName(base)
	if !w.try(1, base, func(m *lock.Manifest) { m.Inputs.Files = append(m.Inputs.Files, lock.ManifestFile{Name: n, URL: rel}) }) {
		return
	}
	arch := "x86-64"
	if len(w.m.Arches) > 0 && w.m.Arches[0] == "aarch64" {
		arch = "arm64"
	}
	env := []string{"ARCHITECTURE=" + arch}
	for _, v := range []struct{ name, value string }{
		{"DISTRIBUTION", w.distro.id}, {"RELEASE", w.distro.release}, {"IMAGE_ID", w.imageID}, {"IMAGE_VERSION", w.m.Image.Version}, {"PROFILES", strings.Join(w.profiles, " ")},
	} {
		if v.value != "" {
			env = append(env, v.name+"="+quote(v.value))
		}
	}
	add(&w.tools, "bash", "coreutils")
	run := fmt.Sprintf("%s BUILDROOT=\"$ROOT\" bash \"$IN/%s\" final\n", strings.Join(env, " "), n)
	if s.chroot {
		run = fmt.Sprintf("%s BUILDROOT=/ chroot \"$ROOT\" /bin/bash -s final < \"$IN/%s\"\n", strings.Join(env, " "), n)
	}
	if w.step(1, base, "The "+base+" of "+shorten(path.Dir(rel))+": see that it needs no network and no running system.", run) {
		w.noteIn(s.name, 1, base, "it is a run step now, which has no network, no sources ($SRCDIR) and no running system: see that it needs none")
	}
}
