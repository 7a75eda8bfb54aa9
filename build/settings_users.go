package build

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
)

// firstID is where ids are looked for that nobody gave: those below are the
// system's (login.defs(5), UID_MIN).
const firstID = 1000

// locked is the password of one who has none, as systemd-sysusers writes it.
const locked = "!*"

// userTable is one of the files of the user database: lines of fields with
// colons between them. Lines that are none (comments) have one field.
type userTable struct {
	path    string
	there   bool
	changed bool
	lines   [][]string
}

// userDatabase is passwd(5), group(5), shadow(5) and gshadow(5) of a root.
type userDatabase struct {
	root                           *installed
	passwd, group, shadow, gshadow *userTable
	days                           string // the day of the last change of a password
}

func (i *installed) users(epoch int64) (*userDatabase, error) {
	d := &userDatabase{root: i, days: strconv.FormatInt(epoch/(24*60*60), 10)}
	for _, f := range []struct {
		to     **userTable
		name   string
		fields int
	}{{&d.passwd, "passwd", 7}, {&d.group, "group", 4}, {&d.shadow, "shadow", 9}, {&d.gshadow, "gshadow", 4}} {
		t := &userTable{path: "etc/" + f.name}
		*f.to = t
		if i.tree.Resolve(t.path) == nil {
			continue
		}
		content, err := i.tree.ReadFile(t.path)
		if err != nil {
			return nil, err
		}
		t.there = true
		n := 0
		for l := range strings.Lines(string(content)) {
			n++
			fields := strings.Split(strings.TrimSuffix(l, "\n"), ":")
			if len(fields) != f.fields && fields[0] != "" && !strings.HasPrefix(fields[0], "#") {
				return nil, fmt.Errorf("/%s:%d: %d fields; want %d", t.path, n, len(fields), f.fields)
			}
			t.lines = append(t.lines, fields)
		}
	}
	return d, nil
}

// find is the line of a name; nil where there is none.
func (t *userTable) find(name string) []string {
	for _, l := range t.lines {
		if l[0] == name && len(l) > 1 {
			return l
		}
	}
	return nil
}

// withID is the line of an id, which is the third field of passwd and group.
func (t *userTable) withID(id uint32) []string {
	want := strconv.FormatUint(uint64(id), 10)
	for _, l := range t.lines {
		if len(l) > 2 && l[2] == want {
			return l
		}
	}
	return nil
}

func (t *userTable) add(fields ...string) []string {
	t.lines = append(t.lines, fields)
	t.changed = true
	return fields
}

func (t *userTable) set(l []string, field int, value string) {
	t.changed = t.changed || l[field] != value
	l[field] = value
}

// free is the first id that no table has.
func free(tables ...*userTable) uint32 {
	id := uint32(firstID)
	for slices.ContainsFunc(tables, func(t *userTable) bool { return t.withID(id) != nil }) {
		id++
	}
	return id
}

// setUsers adds the lock's users and groups to the root.
func (b *builder) setUsers(root *installed) error {
	s := b.image.Settings
	if s == nil || len(s.Users)+len(s.Groups) == 0 {
		return nil
	}
	d, err := root.users(b.Lock.Epoch)
	if err != nil {
		return err
	}
	for _, t := range []*userTable{d.passwd, d.group} {
		if !t.there {
			return fmt.Errorf("the root has no /%s to add users and groups to", t.path)
		}
	}
	for _, g := range s.Groups {
		if _, err := d.addGroup(g.Name, g.GID); err != nil {
			return fmt.Errorf("image.groups: %w", err)
		}
	}
	for i := range s.Users {
		if err := d.addUser(&s.Users[i]); err != nil {
			return fmt.Errorf("image.users: %s: %w", s.Users[i].Name, err)
		}
	}
	for i := range s.Users { // now that all groups are there
		if err := d.join(&s.Users[i]); err != nil {
			return fmt.Errorf("image.users: %s: %w", s.Users[i].Name, err)
		}
	}
	if err := d.write(); err != nil {
		return err
	}
	for i := range s.Users {
		if err := d.addHome(&s.Users[i]); err != nil {
			return fmt.Errorf("image.users: %s: %w", s.Users[i].Name, err)
		}
	}
	return nil
}

// addGroup adds a group unless it is there, and returns its id.
func (d *userDatabase) addGroup(name string, gid *uint32) (string, error) {
	if l := d.group.find(name); l != nil {
		if gid != nil && l[2] != text(*gid) {
			return "", fmt.Errorf("group %s has gid %s in the root; got %d", name, l[2], *gid)
		}
		return l[2], nil
	}
	var id uint32
	if gid == nil {
		id = free(d.group)
	} else if id = *gid; d.group.withID(id) != nil {
		return "", fmt.Errorf("gid %d of group %s is that of group %s in the root", id, name, d.group.withID(id)[0])
	}
	d.group.add(name, "x", text(id), "")
	if d.gshadow.there {
		d.gshadow.add(name, locked, "", "")
	}
	return text(id), nil
}

func text(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

func (d *userDatabase) addUser(u *lock.User) error {
	l := d.passwd.find(u.Name)
	if l == nil {
		var err error
		if l, err = d.newUser(u); err != nil {
			return err
		}
	}
	if u.UID != nil && l[2] != text(*u.UID) {
		return fmt.Errorf("has uid %s in the root; got %d", l[2], *u.UID)
	}
	if u.GID != nil && l[3] != text(*u.GID) {
		return fmt.Errorf("has gid %s in the root; got %d", l[3], *u.GID)
	}
	if u.Home != "" {
		d.passwd.set(l, 5, u.Home)
	}
	if u.Shell != "" {
		if e := d.root.tree.Resolve(u.Shell); e == nil || !e.Is(unix.S_IFREG) {
			return fmt.Errorf("the root has no %s to be a shell", u.Shell)
		}
		d.passwd.set(l, 6, u.Shell)
	}
	if u.Password == "" {
		return nil
	}
	password := u.Password
	if password == lock.PasswordLocked {
		password = locked
	}
	d.passwd.set(l, 1, "x")
	s := d.shadow.find(u.Name)
	if s == nil {
		s = d.shadow.add(u.Name, "", d.days, "", "", "", "", "", "")
	}
	d.shadow.set(s, 1, password)
	d.shadow.set(s, 2, d.days)
	return nil
}

// newUser adds a user whose password is locked, and returns the line in
// passwd.
func (d *userDatabase) newUser(u *lock.User) ([]string, error) {
	var uid uint32
	switch {
	case u.UID != nil:
		uid = *u.UID
	case u.GID == nil && d.group.find(u.Name) == nil:
		uid = free(d.passwd, d.group) // one number for both
	default:
		uid = free(d.passwd)
	}
	if other := d.passwd.withID(uid); other != nil {
		return nil, fmt.Errorf("uid %d is that of %s in the root", uid, other[0])
	}
	gid, err := d.primary(u, uid)
	if err != nil {
		return nil, err
	}
	shell := "/bin/bash"
	if d.root.tree.Resolve(shell) == nil {
		shell = "/bin/sh"
	}
	if d.shadow.find(u.Name) == nil {
		d.shadow.add(u.Name, locked, d.days, "", "", "", "", "", "")
	}
	return d.passwd.add(u.Name, "x", text(uid), gid, "", "/home/"+u.Name, shell), nil
}

// primary is the id of a new user's own group, which is made where it is
// missing.
func (d *userDatabase) primary(u *lock.User, uid uint32) (string, error) {
	if u.GID != nil {
		if l := d.group.withID(*u.GID); l != nil {
			return l[2], nil
		}
		return d.addGroup(u.Name, u.GID)
	}
	if d.group.find(u.Name) == nil && d.group.withID(uid) == nil {
		return d.addGroup(u.Name, &uid)
	}
	return d.addGroup(u.Name, nil)
}

// join makes a user a member of further groups.
func (d *userDatabase) join(u *lock.User) error {
	for _, name := range u.Groups {
		l := d.group.find(name)
		if l == nil {
			return fmt.Errorf("the root has no group %s: add it to image.groups", name)
		}
		for t, l := range map[*userTable][]string{d.group: l, d.gshadow: d.gshadow.find(name)} {
			if l == nil {
				continue
			}
			members := strings.FieldsFunc(l[3], func(r rune) bool { return r == ',' })
			if !slices.Contains(members, u.Name) {
				t.set(l, 3, strings.Join(append(members, u.Name), ","))
			}
		}
	}
	return nil
}

// write writes the tables that have changed. A shadow file that was missing
// is one that only root may read.
func (d *userDatabase) write() error {
	for _, t := range []*userTable{d.passwd, d.group, d.shadow, d.gshadow} {
		if !t.changed {
			continue
		}
		var out strings.Builder
		for _, l := range t.lines {
			out.WriteString(strings.Join(l, ":") + "\n")
		}
		content := []byte(out.String())
		var err error
		if t.there {
			err = d.root.edit(t.path, func([]byte) ([]byte, error) { return content, nil })
		} else {
			err = d.root.put(t.path, bySettings, func() error { return d.root.tree.PutFile(t.path, 0, content) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// noHome is the home of users who are to have none.
const noHome = "/nonexistent"

// addHome makes a user's home folder unless it is there, and the keys by
// which one may log in.
func (d *userDatabase) addHome(u *lock.User) error {
	l := d.passwd.find(u.Name)
	uid, err := strconv.ParseUint(l[2], 10, 32)
	if err != nil {
		return fmt.Errorf("uid: %w", err)
	}
	gid, err := strconv.ParseUint(l[3], 10, 32)
	if err != nil {
		return fmt.Errorf("gid: %w", err)
	}
	owned := rootfs.Entry{UID: uint32(uid), GID: uint32(gid)}
	home := d.root.at(l[5])
	if l[5] != noHome && l[5] != "/" {
		if err := d.root.ownDir(home, owned); err != nil {
			return err
		}
	}
	if len(u.SSHKeys) == 0 {
		return nil
	}
	ssh := d.root.at(path.Join(l[5], ".ssh"))
	if err := d.root.ownDir(ssh, owned); err != nil {
		return err
	}
	keys := d.root.at(path.Join(l[5], ".ssh/authorized_keys"))
	if d.root.tree.Get(keys) != nil {
		return fmt.Errorf("the root has /%s already", keys)
	}
	return d.root.put(keys, bySettings, func() error {
		if err := d.root.tree.PutFile(keys, 0o600, []byte(strings.Join(u.SSHKeys, "\n")+"\n")); err != nil {
			return err
		}
		e := d.root.tree.Get(keys)
		e.UID, e.GID = owned.UID, owned.GID
		return nil
	})
}

// ownDir adds a folder that only its owner may enter, unless there is one.
func (i *installed) ownDir(p string, owned rootfs.Entry) error {
	if e := i.tree.Resolve(p); e != nil && e.Is(unix.S_IFDIR) {
		return nil
	}
	owned.Path, owned.Mode = p, unix.S_IFDIR|0o700
	return i.put(p, bySettings, func() error { return i.tree.Put(&owned) })
}

// checkPasswords refuses a root into which somebody gets without a password,
// and one whose superuser has a password that nobody asked for: the settings,
// an overlay and a step may give one, a package may not.
func (i *installed) checkPasswords(s *lock.Settings) error {
	for _, p := range []string{"etc/passwd", "etc/shadow"} { // of one that was placed and then edited the ledger has the inputs
		e := i.tree.Resolve(p)
		if e == nil {
			continue
		}
		content, err := i.tree.ReadFile(p)
		if err != nil {
			return err
		}
		for l := range strings.Lines(string(content)) {
			f := strings.Split(strings.TrimSuffix(l, "\n"), ":")
			if len(f) < 2 || f[0] == "" || strings.HasPrefix(f[0], "#") {
				continue
			}
			switch {
			case f[1] == "":
				return fmt.Errorf("/%s: %s has an empty password, and anybody could log in: give image.users one for %s, or locked", p, f[0], f[0])
			case f[0] == "root" && isPassword(f[1]) && !givesRoot(s) && !i.isPlaced(e.Path) && i.ledger.by[e.Path].inputs == nil:
				return fmt.Errorf("/%s: the packages give root a password that the manifest does not ask for: give image.users one for root, or locked", p)
			}
		}
	}
	return nil
}

// isPassword tells a hash from what no password can have for its hash.
func isPassword(field string) bool {
	return field != "x" && !strings.HasPrefix(field, "!") && !strings.HasPrefix(field, "*")
}

func givesRoot(s *lock.Settings) bool {
	return s != nil && slices.ContainsFunc(s.Users, func(u lock.User) bool { return u.Name == "root" && u.Password != "" })
}
