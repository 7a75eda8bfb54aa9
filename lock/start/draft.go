package start

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"caisson/lock"
)

// draft is a manifest while it is made.
type draft struct {
	dir      string // the manifest's folder, absolute
	at       string // the file that is read
	m        lock.Manifest
	comments map[string]string
	notes    []Note
	distro   distro
	known    map[string]bool // packages that rpm.from brings
	locked   bool            // an rpms.lock.yaml named the packages
	usesVars bool            // a repository of rpm.from has $releasever in its address
	tools    []string        // what the steps need besides what every build does
	chroots  bool            // a step runs the root's own programs
	profiles []string        // of mkosi, that were asked for
	named    map[string]bool // those of them that there are
}

func newDraft(dir string) (*draft, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &draft{
		dir: abs, comments: map[string]string{}, known: map[string]bool{}, named: map[string]bool{},
		m: lock.Manifest{Version: 1, Sets: map[string]lock.ManifestSet{}},
	}, nil
}

// note says what of a line of the file is not in the manifest.
func (d *draft) note(line int, what, why string) { d.noteIn(d.at, line, what, why) }

func (d *draft) noteIn(file string, line int, what, why string) {
	n := Note{File: file, Line: max(line, 1), What: shorten(what), Why: why}
	if !slices.Contains(d.notes, n) {
		d.notes = append(d.notes, n)
	}
}

// try changes the manifest if the change, alone, makes a valid one, and notes
// why not otherwise. It tells whether it did. change is called twice.
func (d *draft) try(line int, what string, change func(m *lock.Manifest)) bool {
	probe := lock.Manifest{Version: 1, Name: "probe", Sets: map[string]lock.ManifestSet{}}
	probe.RPM.From = "rpms.in.yaml"
	change(&probe)
	b, err := renderManifest(&probe, "", nil)
	if err == nil {
		_, err = lock.ParseManifest("", b)
	}
	if err != nil {
		d.note(line, what, refusal(err))
		return false
	}
	change(&d.m)
	return true
}

var refusalPlace = regexp.MustCompile(`^:\d+: ([A-Za-z.\[\]0-9_-]+: )?`)

// refusal is the manifest's error without its place, which is that of a file
// nobody has.
func refusal(err error) string {
	return "a manifest cannot have it: " + refusalPlace.ReplaceAllString(err.Error(), "")
}

// add adds to a list what it has not.
func add(list *[]string, words ...string) {
	for _, w := range words {
		if w != "" && !slices.Contains(*list, w) {
			*list = append(*list, w)
		}
	}
}

// set changes one set of a manifest.
func set(m *lock.Manifest, name string, change func(s *lock.ManifestSet)) {
	s := m.Sets[name]
	change(&s)
	m.Sets[name] = s
}

// packages adds packages to a set, but for what is no package of a repository.
func (d *draft) packages(line int, to string, names ...string) {
	for _, name := range names {
		name = strings.TrimSpace(name)
		switch {
		case name == "" || d.known[name] && to == lock.SetRoot:
		case strings.Contains(name, "://") || strings.HasSuffix(name, ".rpm"):
			d.note(line, name, "it is a file, and packages are from repositories: put it into one (createrepo_c) and add that to rpm.repos")
		case strings.ContainsAny(name, "$`\x00\n"):
			d.note(line, name, "its value is not known here")
		default:
			d.try(line, name, func(m *lock.Manifest) {
				set(m, to, func(s *lock.ManifestSet) { add(&s.Packages, name) })
			})
		}
	}
}

// exclude adds to what the root must not get.
func (d *draft) exclude(line int, names ...string) {
	for _, name := range names {
		d.try(line, name, func(m *lock.Manifest) {
			set(m, lock.SetRoot, func(s *lock.ManifestSet) { add(&s.Exclude, name) })
		})
	}
}

// unit is the name of a unit in full.
func unit(name string) string {
	if !strings.Contains(name, ".") {
		return name + ".service"
	}
	return name
}

// services enables, disables or masks units.
func (d *draft) services(line int, how string, names ...string) {
	for _, name := range names {
		name = unit(strings.TrimSpace(name))
		if how == "mask" && slices.Contains(d.m.Image.Services.Enable, name) || how == "enable" && slices.Contains(d.m.Image.Services.Mask, name) {
			d.note(line, how+" "+name, "it is masked and enabled: the first counts")
			continue
		}
		d.try(line, how+" "+name, func(m *lock.Manifest) {
			s := &m.Image.Services
			add(map[string]*[]string{"enable": &s.Enable, "disable": &s.Disable, "mask": &s.Mask}[how], name)
		})
	}
}

// cmdline adds to the kernel's command line.
func (d *draft) cmdline(line int, text string) {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return
	}
	d.try(line, text, func(m *lock.Manifest) {
		m.Image.Kernel.Cmdline = strings.TrimSpace(m.Image.Kernel.Cmdline + " " + strings.TrimPrefix(text, "+"))
	})
}

// repo adds a repository. One without a key gets the path of one, with a
// comment that asks for it.
func (d *draft) repo(line int, r lock.ManifestRepo) {
	r.ID = identifier(r.ID)
	if slices.ContainsFunc(d.m.RPM.Repos, func(o lock.ManifestRepo) bool { return o.ID == r.ID }) {
		d.note(line, "repository "+r.ID, "there is one of that name already, which counts")
		return
	}
	comment := ""
	checked := r.GPGCheck == nil || *r.GPGCheck
	if checked && len(r.GPGKey) == 0 {
		r.GPGKey = []string{"keys/" + strings.ReplaceAll(r.ID, "$basearch-", "")}
		comment = "The key that its packages are signed by: put it there, or name it."
	}
	if !checked {
		comment = "Anybody on the way can change its packages: give a gpgkey instead."
	}
	at := fmt.Sprintf("rpm.repos[%d]", len(d.m.RPM.Repos))
	if d.try(line, "repository "+r.ID, func(m *lock.Manifest) { m.RPM.Repos = append(m.RPM.Repos, r) }) && comment != "" {
		d.comments[at] = comment
	}
}

var notIdentifier = regexp.MustCompile(`[^A-Za-z0-9_.:+$-]+`)

// identifier makes a repository's id of a text.
func identifier(s string) string {
	return strings.Trim(notIdentifier.ReplaceAllString(s, "-"), "-")
}

var notName = regexp.MustCompile(`[^a-z0-9._-]+`)

// name makes an image's or an input's name of a text; empty where nothing is
// left of it.
func plainName(s string) string {
	s = notName.ReplaceAllString(strings.ToLower(s), "-")
	return strings.TrimRight(strings.TrimLeft(s, "-._"), "-._")
}

// called names the image unless it has a name.
func (d *draft) called(s string) {
	if n := plainName(s); n != "" && d.m.Name == "" {
		d.m.Name = n
	}
}

// arch adds an architecture, as rpm or as others call it.
func (d *draft) arch(line int, name string) {
	if a, ok := map[string]string{"x86-64": "x86_64", "amd64": "x86_64", "arm64": "aarch64", "ppc64-le": "ppc64le"}[name]; ok {
		name = a
	}
	d.try(line, name, func(m *lock.Manifest) { add(&m.Arches, name) })
}

// user adds to an account.
func (d *draft) user(line int, what string, u lock.User) {
	d.try(line, what, func(m *lock.Manifest) {
		i := slices.IndexFunc(m.Image.Users, func(o lock.User) bool { return o.Name == u.Name })
		if i < 0 {
			m.Image.Users = append(m.Image.Users, u)
			return
		}
		o := &m.Image.Users[i]
		add(&o.Groups, u.Groups...)
		add(&o.SSHKeys, u.SSHKeys...)
		if u.Password != "" {
			o.Password = u.Password
		}
	})
}

// password is what becomes of one that a file has: a hash is carried over, a
// text that can be read is not.
func (d *draft) password(line int, user, password string, hashed bool) string {
	if hashed || strings.HasPrefix(password, "$") {
		return password
	}
	if password != "" {
		d.note(line, "the password of "+user, "it can be read, and a manifest has hashes only: put the output of `openssl passwd -6` into image.users")
	}
	return ""
}

// step adds a run step with a comment.
func (d *draft) step(line int, what, comment, script string) bool {
	at := fmt.Sprintf("steps[%d]", len(d.m.Steps))
	if !d.try(line, what, func(m *lock.Manifest) { m.Steps = append(m.Steps, lock.ManifestStep{Run: script}) }) {
		return false
	}
	d.comments[at] = comment
	d.chroots = d.chroots || strings.Contains(script, `chroot "$ROOT"`)
	return true
}

// stepsOnRoot has the steps from the one given on put files into the root itself,
// so that those that run there find them.
func (d *draft) stepsOnRoot(first int) {
	for i := first; i < len(d.m.Steps); i++ {
		d.m.Steps[i].Run = strings.ReplaceAll(d.m.Steps[i].Run, `"$OUT"`, `"$ROOT"`)
	}
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9/._:@%+=-]+$`)

// quote makes a text one word of a shell.
func quote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// inRoot is a step that runs a script in the installed root.
func inRoot(shell, script string) string {
	return "chroot \"$ROOT\" " + shell + " " + quote(strings.TrimRight(script, "\n")) + "\n"
}
