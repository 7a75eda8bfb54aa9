package lock

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

var (
	// accountRE is what useradd(8) takes for the name of a user or group.
	accountRE = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,30}\$?$`)
	// hashRE is a hash of crypt(5) with a prefix: yescrypt, SHA-512 and so on.
	hashRE = regexp.MustCompile(`^\$[0-9a-z]+\$[!-9;-~]+$`)
	// homeRE and the like are what neither passwd nor a shell's reader of
	// os-release could take for something else.
	homeRE    = regexp.MustCompile(`^/[A-Za-z0-9._/@+-]*$`)
	hostRE    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)
	localeRE  = regexp.MustCompile(`^[A-Za-z]+(_[A-Za-z]+)?(\.[A-Za-z0-9-]+)?(@[A-Za-z]+)?$`)
	zoneRE    = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)
	sysctlRE  = regexp.MustCompile(`^[A-Za-z0-9_]+([./][A-Za-z0-9_*-]+)+$`)
	releaseRE = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	// versionRE is what IMAGE_VERSION of os-release(5) takes.
	versionRE = regexp.MustCompile(`^[a-z0-9._-]+$`)
)

// Sizes: of a host name sethostname(2)'s, of ids all below the one that
// chown(2) takes for "none".
const (
	maxHostname = 64
	maxID       = 1<<32 - 2
)

// settingError is about the value at a path of keys below image.
type settingError struct {
	where []any
	err   error
}

func (e *settingError) Error() string { return fmt.Sprintf("%v: %v", e.where, e.err) }

// settingf makes one.
func settingf(where []any, format string, args ...any) *settingError {
	return &settingError{where, fmt.Errorf(format, args...)}
}

// checkSettings checks an image's own settings, before they are merged.
func (m *manifestChecker) checkSettings(where []any, im *ManifestImage) error {
	s := im.settings()
	if s == nil {
		return nil
	}
	if e := s.check(); e != nil {
		return m.errorf(below(where, e.where...), "%w", e.err)
	}
	return nil
}

// checkTogether checks what the parts of the image say of each other, in the
// image and with each variant.
func (m *manifestChecker) checkTogether() error {
	check := func(where []any, services ManifestServices, s *Settings, modules []string) error {
		for i, u := range services.Mask {
			if slices.Contains(services.Enable, u) {
				return m.errorf(below(where, "services", "mask", i), "%s is enabled too, and what is masked cannot start", u)
			}
		}
		if s == nil {
			return nil
		}
		for i, d := range s.DenyModules {
			if slices.ContainsFunc(modules, func(k string) bool { return sameModule(k, d) }) {
				return m.errorf(below(where, "modprobe", "deny", i), "%s is one of the initrd's modules", d)
			}
		}
		if s.Version != "" && s.OSRelease["IMAGE_VERSION"] != "" {
			return m.errorf(below(where, "osRelease", "IMAGE_VERSION"), "it is given by image.version")
		}
		return nil
	}
	base := m.Image.settings()
	if err := check(at("image"), m.Image.Services, base, m.Sets[SetInitrd].Modules); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Variants)) {
		v := m.Variants[name]
		services := ManifestServices{
			Enable: slices.Concat(m.Image.Services.Enable, v.Image.Services.Enable), Mask: slices.Concat(m.Image.Services.Mask, v.Image.Services.Mask),
		}
		modules := slices.Concat(m.Sets[SetInitrd].Modules, v.Sets[SetInitrd].Modules)
		if err := check(at("variants", name, "image"), services, base.merge(v.Image.settings()), modules); err != nil {
			return err
		}
	}
	return nil
}

// sameModule compares names of kernel modules, where - and _ are the same.
func sameModule(a, b string) bool {
	return strings.ReplaceAll(a, "-", "_") == strings.ReplaceAll(b, "-", "_")
}

// checkSettings checks what the lock carries: a lock that was edited must not
// write lines into files that the manifest could not.
func (l *Lock) checkSettings() error {
	for _, v := range append([]Variant{{Image: l.Image}}, l.Variants...) {
		if _, err := checkOutput(v.Image.Output); err != nil {
			return fmt.Errorf("output of the image: %w", err)
		}
		if err := v.Image.checkKind(l.IsArchive()); err != nil {
			return err
		}
		if err := v.Image.checkBoot(); err != nil {
			return err
		}
		if err := v.Image.checkRoot(); err != nil {
			return err
		}
		if err := v.Image.checkDisk(); err != nil {
			return err
		}
		s := v.Image.Settings
		if s == nil {
			continue
		}
		if s.isZero() {
			return fmt.Errorf("settings of the image %q: none; want the key to be left out", v.Name)
		}
		if e := s.check(); e != nil {
			return fmt.Errorf("settings of the image: %w", e)
		}
	}
	for _, s := range l.Sets {
		if s.Scriptlets != "" && s.Scriptlets != ScriptletsSkip {
			return fmt.Errorf("set %s: scriptlets %q is not known to this Caisson", s.Name, s.Scriptlets)
		}
	}
	return nil
}

// check is what settings must satisfy by themselves.
func (s *Settings) check() *settingError {
	for i := range s.Users {
		u := &s.Users[i]
		if slices.ContainsFunc(s.Users[:i], func(o User) bool { return o.Name == u.Name }) {
			return settingf(at("users", i, "name"), "%q is there twice", u.Name)
		}
		if e := u.check(at("users", i)); e != nil {
			return e
		}
	}
	for i, g := range s.Groups {
		if slices.ContainsFunc(s.Groups[:i], func(o Group) bool { return o.Name == g.Name }) {
			return settingf(at("groups", i, "name"), "%q is there twice", g.Name)
		}
		if !accountRE.MatchString(g.Name) {
			return settingf(at("groups", i, "name"), "%q is not the name of a group", g.Name)
		}
		if e := checkID(at("groups", i, "gid"), g.GID); e != nil {
			return e
		}
	}
	for _, f := range []func() *settingError{s.checkSystem, s.checkKernel, s.checkRemove, s.checkRelease} {
		if e := f(); e != nil {
			return e
		}
	}
	return nil
}

func checkID(where []any, id *uint32) *settingError {
	if id != nil && *id > maxID {
		return settingf(where, "got %d; want at most %d", *id, maxID)
	}
	return nil
}

func (u *User) check(where []any) *settingError {
	if !accountRE.MatchString(u.Name) {
		return settingf(below(where, "name"), "%q is not the name of a user: want lower-case letters, digits, '.', '_' and '-'", u.Name)
	}
	if e := checkID(below(where, "uid"), u.UID); e != nil {
		return e
	}
	if e := checkID(below(where, "gid"), u.GID); e != nil {
		return e
	}
	for i, g := range u.Groups {
		if !accountRE.MatchString(g) {
			return settingf(below(where, "groups", i), "%q is not the name of a group", g)
		}
	}
	for _, f := range []struct{ key, value string }{{"home", u.Home}, {"shell", u.Shell}} {
		if f.value != "" && (!homeRE.MatchString(f.value) || path.Clean(f.value) != f.value) {
			return settingf(below(where, f.key), "%q is not an absolute path of letters, digits and ._@+-", f.value)
		}
	}
	if u.Password != "" && u.Password != PasswordLocked && !hashRE.MatchString(u.Password) {
		return settingf(below(where, "password"), "want locked, or a hash as mkpasswd and openssl passwd -6 print it")
	}
	for i, k := range u.SSHKeys {
		if strings.ContainsAny(k, "\n\r\x00") {
			return settingf(below(where, "sshKeys", i), "more than one line")
		}
		if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(k)); err != nil || len(bytes.TrimSpace(rest)) > 0 {
			return settingf(below(where, "sshKeys", i), "%.60q is not a public key as authorized_keys has it", k)
		}
	}
	return nil
}

func (s *Settings) checkSystem() *settingError {
	switch {
	case s.Hostname != "" && (!hostRE.MatchString(s.Hostname) || len(s.Hostname) > maxHostname):
		return settingf(at("hostname"), "%q is not a host name of at most %d letters, digits, '-' and '.'", s.Hostname, maxHostname)
	case s.Locale != "" && !localeRE.MatchString(s.Locale):
		return settingf(at("locale"), "%q is not a locale, such as C.UTF-8 or de_DE.UTF-8", s.Locale)
	case s.Timezone != "" && !zoneRE.MatchString(s.Timezone):
		return settingf(at("timezone"), "%q is not a time zone, such as UTC or Europe/Berlin", s.Timezone)
	}
	return nil
}

func (s *Settings) checkKernel() *settingError {
	for _, k := range slices.Sorted(maps.Keys(s.Sysctl)) {
		if !sysctlRE.MatchString(k) {
			return settingf(at("sysctl", k), "want the name of a kernel parameter, such as net.ipv4.ip_forward")
		}
		if v := s.Sysctl[k]; !isLine(v) || strings.TrimSpace(v) != v || v == "" {
			return settingf(at("sysctl", k), "%q is not the value of a kernel parameter", v)
		}
	}
	for i, d := range s.DenyModules {
		if !moduleRE.MatchString(d) {
			return settingf(at("modprobe", "deny", i), "%q is not the name of a kernel module, such as usb-storage", d)
		}
	}
	return nil
}

func (s *Settings) checkRemove() *settingError {
	for i, p := range s.Remove {
		if _, err := path.Match(p, ""); err != nil || !path.IsAbs(p) || path.Clean(p) != p || p == "/" || !isLine(p) {
			return settingf(at("remove", i), "%q is not an absolute path or a pattern of one, such as /usr/share/games or /etc/*.orig", p)
		}
	}
	return nil
}

func (s *Settings) checkRelease() *settingError {
	if s.Version != "" && !versionRE.MatchString(s.Version) {
		return settingf(at("version"), "got %q; want lower-case letters, digits, '.', '_' and '-'", s.Version)
	}
	for _, k := range slices.Sorted(maps.Keys(s.OSRelease)) {
		if !releaseRE.MatchString(k) {
			return settingf(at("osRelease", k), "want a field's name in capitals, such as VARIANT_ID")
		}
		if !isLine(s.OSRelease[k]) {
			return settingf(at("osRelease", k), "%q is not one line of text", s.OSRelease[k])
		}
	}
	return nil
}

// isLine tells whether text can stand in one line of a file.
func isLine(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) < 0
}
