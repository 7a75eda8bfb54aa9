package build

import (
	"archive/tar"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/filecap"
)

// bySettings is how what the lock has Caisson write came to be.
var bySettings = origin{account: Generated, by: "settings"}

// asked is the mode and the owner that an overlay's owners file gives.
type asked struct {
	header *tar.Header
	input  string
}

// ask notes what an overlay asks for its files, by their paths in the root. A
// folder that was there before belongs to the overlay now.
func (i *installed) ask(headers []*tar.Header, how origin) error {
	if len(headers) == 0 {
		return nil
	}
	dst, err := os.OpenRoot(i.dir)
	if err != nil {
		return err
	}
	defer dst.Close()
	for _, h := range headers {
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			name += "/x" // what a link leads to, not the link
		}
		at, err := rootfs.RealPath(dst, name)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			at = path.Dir(at)
			i.ledger.set(at, how)
		}
		i.asked[at] = asked{header: h, input: how.inputs[0]}
	}
	return nil
}

// giveAsked gives files the modes, owners and capabilities that overlays ask
// for; names become numbers by the root's own passwd and group.
func (i *installed) giveAsked() error {
	if len(i.asked) == 0 {
		return nil
	}
	users, err := i.tree.IDs("etc/passwd")
	if err != nil {
		return err
	}
	groups, err := i.tree.IDs("etc/group")
	if err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(i.asked)) {
		a := i.asked[p]
		e := i.tree.Get(p)
		if e == nil {
			continue // a later program removed it
		}
		if err := give(e, a.header, users, groups); err != nil {
			return fmt.Errorf("%s: /%s: %w", a.input, p, err)
		}
	}
	return nil
}

func give(e *rootfs.Entry, h *tar.Header, users, groups map[string]uint32) error {
	was := *e
	e.UID, e.GID = uint32(h.Uid), uint32(h.Gid) //nolint:gosec // 32 bits in the owners file
	if h.Uname != "" {
		id, ok := users[h.Uname]
		if !ok {
			return fmt.Errorf("the root has no user %q", h.Uname)
		}
		e.UID = id
	}
	if h.Gname != "" {
		id, ok := groups[h.Gname]
		if !ok {
			return fmt.Errorf("the root has no group %q", h.Gname)
		}
		e.GID = id
	}
	if h.Typeflag != tar.TypeSymlink && !e.Is(unix.S_IFLNK) {
		e.Mode = e.Mode&unix.S_IFMT | uint32(h.Mode&0o7777) //nolint:gosec // twelve bits
	}
	for k := range strings.FieldsSeq(h.PAXRecords[lock.KeepRecord]) {
		switch k {
		case "mode":
			e.Mode = was.Mode
		case "owner":
			e.UID = was.UID
		case "group":
			e.GID = was.GID
		}
	}
	e.Xattrs = nil
	if v := h.PAXRecords[lock.CapabilityRecord]; v != "" {
		e.Xattrs = map[string][]byte{filecap.Xattr: []byte(v)}
	}
	return nil
}

// at is where an absolute path lies in the tree: the links of its folders
// followed, its own not.
func (i *installed) at(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	dir, base := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		return p
	}
	if d := i.tree.Resolve(dir); d != nil {
		return path.Join(d.Path, base)
	}
	return path.Join(i.at(dir), base)
}

// edit changes a file's content and leaves its mode and its owner.
func (i *installed) edit(p string, change func(content []byte) ([]byte, error)) error {
	old := i.tree.Resolve(p)
	if old == nil || !old.Is(unix.S_IFREG) {
		return fmt.Errorf("the root has no /%s", p)
	}
	content, err := i.tree.ReadFile(p)
	if err != nil {
		return err
	}
	if content, err = change(content); err != nil {
		return err
	}
	how := bySettings
	if was := i.ledger.by[old.Path]; was.account == Placed || was.account == Compiled {
		how.inputs = was.inputs
	}
	e := *old
	e.HardLink, e.Source, e.Content = "", "", content
	if err := e.Hash(); err != nil {
		return err
	}
	return i.put(e.Path, how, func() error { return i.tree.Put(&e) })
}

// write adds a file, or a link, that is Caisson's alone: it is an error that
// an overlay or a step brings one too.
func (i *installed) write(p, asks string, put func(at string) error) error {
	p = i.at(p)
	if i.isPlaced(p) {
		return fmt.Errorf("/%s: an overlay or a step brings it, and image.%s asks for it too", p, asks)
	}
	return i.put(p, bySettings, func() error { return put(p) })
}

// applySettings writes the lock's settings into the root, but for users, who
// are there already.
func (b *builder) applySettings(root *installed) error {
	var done []string
	s := b.image.Settings
	if s != nil {
		var err error
		if done, err = b.removeAsked(root, s); err != nil {
			return err
		}
	}
	for _, u := range b.image.Services.Mask {
		if err := root.mask(u); err != nil {
			return err
		}
		done = append(done, u+": masked")
	}
	scratch, err := root.writeScratch(b.image.Scratch)
	if err != nil {
		return err
	}
	done = append(done, scratch...)
	if s != nil {
		written, err := root.writeSettings(s)
		if err != nil {
			return err
		}
		done = append(done, written...)
		if err := b.release(root, s); err != nil {
			return err
		}
	}
	if len(done) > 0 {
		b.log.Append("settings "+root.set, strings.Join(done, "\n"))
	}
	return nil
}

// removeAsked takes out of the root what the settings say, and returns a line
// for each file. What overlays and steps bring stays.
func (b *builder) removeAsked(root *installed, s *lock.Settings) ([]string, error) {
	if len(s.Remove) == 0 && !s.NoDocs {
		return nil, nil
	}
	before := root.tree.Entries()
	for _, p := range s.Remove {
		r := rootfs.Rule{Match: strings.TrimPrefix(p, "/"), Do: rootfs.Remove}
		if len(root.tree.Normalise([]rootfs.Rule{r}, root.isPlaced)) == 0 {
			return nil, fmt.Errorf("image.remove: %s matches nothing that packages brought into the root", p)
		}
	}
	if s.NoDocs {
		kept := languages(s.Locale)
		root.tree.Normalise(rootfs.DocRules(), func(p string) bool {
			rest, ok := strings.CutPrefix(p, "usr/share/locale/")
			lang, _, _ := strings.Cut(rest, "/")
			return ok && (lang == "locale.alias" || slices.Contains(kept, lang)) || root.isPlaced(p)
		})
	}
	var lines []string
	root.removed = &Total{}
	for _, e := range before {
		if root.tree.Get(e.Path) == e || e.Is(unix.S_IFDIR) {
			continue
		}
		f, err := root.account(e)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("/%s: removed (%s)", e.Path, strings.TrimSpace(string(f.Account)+" "+strings.Join(f.Inputs, " "))))
		root.removed.Files++
		root.removed.Bytes += e.Size
	}
	return lines, nil
}

// mask links a unit to /dev/null, which systemd takes for "never".
func (i *installed) mask(unit string) error {
	if !i.hasUnit(unit) {
		return fmt.Errorf("image.services.mask: the root has no unit %s", unit)
	}
	p := "etc/systemd/system/" + unit
	return i.write(p, "services.mask", func(at string) error { return i.tree.PutLink(at, "/dev/null") })
}

// hasUnit tells whether there is a unit's file, or its template's. Mounts,
// swaps, devices, slices and scopes need none.
func (i *installed) hasUnit(unit string) bool {
	name, kind := strings.TrimSuffix(unit, path.Ext(unit)), path.Ext(unit)
	if !slices.Contains([]string{".service", ".socket", ".target", ".path", ".timer"}, kind) {
		return true
	}
	files := []string{unit}
	if template, _, ok := strings.Cut(name, "@"); ok {
		files = append(files, template+"@"+kind)
	}
	for _, dir := range []string{"etc/systemd/system/", "usr/lib/systemd/system/", "lib/systemd/system/"} {
		for _, f := range files {
			if i.tree.Get(i.at(dir+f)) != nil {
				return true
			}
		}
	}
	return false
}

// writeSettings writes the files that are Caisson's alone, each for one
// reason, and returns a line for each.
func (i *installed) writeSettings(s *lock.Settings) ([]string, error) {
	var done []string
	for _, f := range []struct{ path, asks, reason, content string }{
		{"etc/hostname", "hostname", "systemd reads the host's name there", line(s.Hostname)},
		{"etc/locale.conf", "locale", "systemd gives it to every service", prefixed("LANG=", s.Locale)},
		{"etc/sysctl.d/90-caisson.conf", "sysctl", "systemd-sysctl sets kernel parameters from there", sysctlText(s.Sysctl)},
		{"etc/modprobe.d/90-caisson.conf", "modprobe.deny", "modprobe refuses modules named there", denyText(s.DenyModules)},
	} {
		if f.content == "" {
			continue
		}
		if err := i.write(f.path, f.asks, func(at string) error { return i.tree.PutFile(at, 0o644, []byte(f.content)) }); err != nil {
			return nil, err
		}
		done = append(done, "/"+f.path+": "+f.reason)
	}
	if err := i.checkLocale(s.Locale); err != nil {
		return nil, err
	}
	if s.Timezone == "" {
		return done, nil
	}
	zone := "usr/share/zoneinfo/" + s.Timezone
	if e := i.tree.Resolve(zone); s.Timezone != "UTC" && (e == nil || !e.Is(unix.S_IFREG)) {
		return nil, fmt.Errorf("image.timezone: the root has no /%s: is tzdata in the root set?", zone)
	}
	done = append(done, "/etc/localtime: the C library reads the time zone there")
	return done, i.write("etc/localtime", "timezone", func(at string) error { return i.tree.PutLink(at, "../"+zone) })
}

// checkLocale wants a locale's files, where the C library has not got it
// built in.
func (i *installed) checkLocale(locale string) error {
	if locale == "" || locale == "C" || locale == "C.UTF-8" || locale == "POSIX" {
		return nil
	}
	base, charset, _ := strings.Cut(locale, ".")
	folded := base + "." + strings.ToLower(strings.ReplaceAll(charset, "-", ""))
	for _, p := range []string{"locale-archive", locale, strings.TrimSuffix(folded, ".")} {
		if i.tree.Resolve("usr/lib/locale/"+p) != nil {
			return nil
		}
	}
	return fmt.Errorf("image.locale: the root has no files of %s below /usr/lib/locale: add its language pack to the root set", locale)
}

// line is text and its end; empty where there is none.
func line(s string) string { return prefixed("", s) }

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s + "\n"
}

func sysctlText(m map[string]string) string {
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&out, "%s = %s\n", k, m[k])
	}
	return out.String()
}

// denyText keeps modules from being loaded by an alias of a device
// (blacklist) and by name (install).
func denyText(modules []string) string {
	var out strings.Builder
	for _, m := range slices.Compact(slices.Sorted(slices.Values(modules))) {
		fmt.Fprintf(&out, "blacklist %s\ninstall %s /bin/false\n", m, m)
	}
	return out.String()
}

// release sets fields of os-release(5): the file that /etc/os-release leads
// to, which the UKI has a copy of.
func (b *builder) release(root *installed, s *lock.Settings) error {
	set := map[string]string{}
	if s.Version != "" {
		set["IMAGE_ID"], set["IMAGE_VERSION"] = b.Lock.Name, s.Version
		if b.Variant != "" {
			set["IMAGE_ID"] += "-" + b.Variant
		}
	}
	maps.Copy(set, s.OSRelease)
	if len(set) == 0 {
		return nil
	}
	return root.edit("etc/os-release", func(content []byte) ([]byte, error) { return []byte(setRelease(string(content), set)), nil })
}

// setRelease replaces the lines of fields that are there and adds the others
// at the end, sorted.
func setRelease(content string, set map[string]string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")
	assign := func(k string) string { return k + `="` + quote.Replace(set[k]) + "\"\n" }
	var out strings.Builder
	have := map[string]bool{}
	for l := range strings.Lines(content) {
		k, _, _ := strings.Cut(l, "=")
		if _, ok := set[k]; !ok {
			out.WriteString(strings.TrimSuffix(l, "\n") + "\n")
		} else if !have[k] {
			out.WriteString(assign(k))
			have[k] = true
		}
	}
	for _, k := range slices.Sorted(maps.Keys(set)) {
		if !have[k] {
			out.WriteString(assign(k))
		}
	}
	return out.String()
}
