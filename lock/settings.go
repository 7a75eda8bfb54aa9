package lock

import (
	"cmp"
	"maps"
	"slices"
)

// Settings are what Caisson itself writes into an image's root, after the
// packages, the steps and the overlays.
type Settings struct {
	// Users are added, or changed where the root has them. Their names are
	// unique, as are those of Groups.
	Users  []User  `json:"users,omitempty"`
	Groups []Group `json:"groups,omitempty"`
	// Hostname, Locale (such as C.UTF-8) and Timezone (such as Europe/Berlin)
	// are of the whole system; empty where the root's own hold.
	Hostname string `json:"hostname,omitempty"`
	Locale   string `json:"locale,omitempty"`
	Timezone string `json:"timezone,omitempty"`
	// Sysctl are kernel parameters, set at boot.
	Sysctl map[string]string `json:"sysctl,omitempty"`
	// DenyModules are kernel modules that modprobe may not load.
	DenyModules []string `json:"denyModules,omitempty"`
	// Remove are absolute paths, or patterns (path.Match) of paths.
	Remove []string `json:"remove,omitempty"`
	NoDocs bool     `json:"noDocs,omitempty"`
	// Version is the image's, IMAGE_VERSION of os-release, whose other fields
	// OSRelease sets.
	Version   string            `json:"version,omitempty"`
	OSRelease map[string]string `json:"osRelease,omitempty"`
}

// User is an account of the image. What is not given is left as it is where
// the root has the user; else it is as said here.
type User struct {
	Name string `yaml:"name" json:"name"`
	// UID is the next free one from 1000 on; GID is that of a group of the
	// user's name, which is made.
	UID *uint32 `yaml:"uid" json:"uid,omitempty"`
	GID *uint32 `yaml:"gid" json:"gid,omitempty"`
	// Groups are further ones, by name.
	Groups []string `yaml:"groups" json:"groups,omitempty"`
	Home   string   `yaml:"home" json:"home,omitempty"`   // /home/NAME; made unless it is there
	Shell  string   `yaml:"shell" json:"shell,omitempty"` // /bin/bash, or /bin/sh where there is none
	// Password is "locked", or a hash as crypt(5) has it.
	Password string   `yaml:"password" json:"password,omitempty"`
	SSHKeys  []string `yaml:"sshKeys" json:"sshKeys,omitempty"` // lines of authorized_keys
}

// PasswordLocked is User.Password of one who cannot log in by a password.
const PasswordLocked = "locked"

// Group is a group of the image.
type Group struct {
	Name string  `yaml:"name" json:"name"`
	GID  *uint32 `yaml:"gid" json:"gid,omitempty"` // the next free one from 1000 on
}

// settings are the manifest's as the lock has them; nil where there are none.
func (m *ManifestImage) settings() *Settings {
	s := &Settings{
		Users: slices.Clone(m.Users), Groups: slices.Clone(m.Groups), Hostname: m.Hostname, Locale: m.Locale, Timezone: m.Timezone,
		Sysctl: m.Sysctl, DenyModules: m.Modprobe.Deny, Remove: m.Remove, NoDocs: !on(m.Docs), Version: m.Version, OSRelease: m.OSRelease,
	}
	if s.isZero() {
		return nil
	}
	return s
}

func (s *Settings) isZero() bool {
	return len(s.Users)+len(s.Groups)+len(s.Sysctl)+len(s.DenyModules)+len(s.Remove)+len(s.OSRelease) == 0 &&
		s.Hostname == "" && s.Locale == "" && s.Timezone == "" && !s.NoDocs && s.Version == ""
}

// merge adds a variant's settings: lists are added to, maps overridden key by
// key, users and groups field by field.
func (s *Settings) merge(v *Settings) *Settings {
	if s == nil || v == nil {
		return cmp.Or(s, v)
	}
	out := *s
	out.Users, out.Groups = slices.Clone(s.Users), slices.Clone(s.Groups)
	for _, u := range v.Users {
		i := slices.IndexFunc(out.Users, func(o User) bool { return o.Name == u.Name })
		if i < 0 {
			out.Users = append(out.Users, u)
			continue
		}
		o := out.Users[i]
		out.Users[i] = User{
			Name: o.Name, UID: cmp.Or(u.UID, o.UID), GID: cmp.Or(u.GID, o.GID), Groups: added(o.Groups, u.Groups), Home: cmp.Or(u.Home, o.Home),
			Shell: cmp.Or(u.Shell, o.Shell), Password: cmp.Or(u.Password, o.Password), SSHKeys: added(o.SSHKeys, u.SSHKeys),
		}
	}
	for _, g := range v.Groups {
		if i := slices.IndexFunc(out.Groups, func(o Group) bool { return o.Name == g.Name }); i >= 0 {
			out.Groups[i].GID = cmp.Or(g.GID, out.Groups[i].GID)
			continue
		}
		out.Groups = append(out.Groups, g)
	}
	out.Hostname, out.Locale = cmp.Or(v.Hostname, s.Hostname), cmp.Or(v.Locale, s.Locale)
	out.Timezone, out.Version = cmp.Or(v.Timezone, s.Timezone), cmp.Or(v.Version, s.Version)
	out.Sysctl, out.OSRelease = over(s.Sysctl, v.Sysctl), over(s.OSRelease, v.OSRelease)
	out.DenyModules, out.Remove = added(s.DenyModules, v.DenyModules), added(s.Remove, v.Remove)
	out.NoDocs = s.NoDocs || v.NoDocs
	return &out
}

// withDocs lets a variant have the documentation that the image leaves out.
func (s *Settings) withDocs(docs *bool) *Settings {
	if s == nil || docs == nil || !*docs {
		return s
	}
	out := *s
	out.NoDocs = false
	if out.isZero() {
		return nil
	}
	return &out
}

// added are two lists, what is in both once.
func added(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// over is a with the keys of b in place of its own.
func over(a, b map[string]string) map[string]string {
	if len(a)+len(b) == 0 {
		return nil
	}
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}
