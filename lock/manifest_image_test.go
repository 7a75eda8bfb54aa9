package lock

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const testSSHKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqAmLvpJzPtUYVkcHNmKMTi9rSzBwRMkWwFd1v7aGxC admin"

// allSettings is a manifest with every setting, and a variant that adds to
// them; %KEY stands for a public key.
const allSettings = head + `sets:
  tools: {packages: [rpm]}
  initrd: {packages: [systemd], modules: [erofs], scriptlets: skip}
  root: {packages: [systemd], scriptlets: run}
image:
  users:
  - {name: admin, groups: [wheel], password: $6$salt$hash, sshKeys: ["%KEY"]}
  - {name: svc, uid: 0x7d0, gid: 34, home: /var/lib/svc, shell: /usr/sbin/nologin}
  groups: [{name: wheel}, {name: plugdev, gid: 46}]
  hostname: pod.example
  locale: de_DE.UTF-8
  timezone: Europe/Berlin
  services: {mask: [tmp.mount]}
  sysctl: {net.ipv4.ip_forward: 1, kernel.modprobe: /bin/false}
  modprobe: {deny: [floppy]}
  remove: [/usr/share/games, "/etc/*.orig"]
  docs: false
  version: 1.2.3-rc1
  osRelease: {VARIANT_ID: podvm}
variants:
  debug:
    sets: {initrd: {packages: [strace]}, root: {packages: [strace], scriptlets: skip}}
    image:
      users: [{name: admin, groups: [wheel, adm], shell: /bin/bash}, {name: root, password: $y$j9T$a}]
      groups: [{name: wheel, gid: 10}, {name: adm}]
      services: {mask: [a.service]}
      hostname: debug
      sysctl: {net.ipv4.ip_forward: 0}
      modprobe: {deny: [floppy, usb-storage]}
      docs: true
      osRelease: {VARIANT_ID: debug, VARIANT: Debug}
`

func parseSettings(t *testing.T, text string) *Manifest {
	t.Helper()
	m, err := ParseManifest("m", []byte(strings.ReplaceAll(text, "%KEY", testSSHKey)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSettings(t *testing.T) {
	m := parseSettings(t, allSettings)
	r := newResolver(Options{Manifest: m})
	r.lock = &Lock{Image: image(m.Image)}
	r.requests()
	r.variants()
	uid, svc, plug, wheel := uint32(2000), uint32(34), uint32(46), uint32(10)
	want := &Settings{
		Users: []User{
			{Name: "admin", Groups: []string{"wheel"}, Password: "$6$salt$hash", SSHKeys: []string{testSSHKey}},
			{Name: "svc", UID: &uid, GID: &svc, Home: "/var/lib/svc", Shell: "/usr/sbin/nologin"},
		},
		Groups: []Group{{Name: "wheel"}, {Name: "plugdev", GID: &plug}}, Hostname: "pod.example", Locale: "de_DE.UTF-8", Timezone: "Europe/Berlin",
		Sysctl: map[string]string{"net.ipv4.ip_forward": "1", "kernel.modprobe": "/bin/false"}, DenyModules: []string{"floppy"},
		Remove: []string{"/usr/share/games", "/etc/*.orig"}, NoDocs: true, Version: "1.2.3-rc1", OSRelease: map[string]string{"VARIANT_ID": "podvm"},
	}
	if got := r.lock.Image; !reflect.DeepEqual(got.Settings, want) || !reflect.DeepEqual(got.Services.Mask, []string{"tmp.mount"}) {
		t.Errorf("got  %+v\nwant %+v", got.Settings, want)
	}
	debug := &Settings{
		Users: []User{
			{Name: "admin", Groups: []string{"wheel", "adm"}, Shell: "/bin/bash", Password: "$6$salt$hash", SSHKeys: []string{testSSHKey}},
			{Name: "svc", UID: &uid, GID: &svc, Home: "/var/lib/svc", Shell: "/usr/sbin/nologin"},
			{Name: "root", Password: "$y$j9T$a"},
		},
		Groups: []Group{{Name: "wheel", GID: &wheel}, {Name: "plugdev", GID: &plug}, {Name: "adm"}}, Hostname: "debug", Locale: "de_DE.UTF-8", Timezone: "Europe/Berlin",
		Sysctl: map[string]string{"net.ipv4.ip_forward": "0", "kernel.modprobe": "/bin/false"}, DenyModules: []string{"floppy", "usb-storage"},
		Remove: []string{"/usr/share/games", "/etc/*.orig"}, Version: "1.2.3-rc1", OSRelease: map[string]string{"VARIANT_ID": "debug", "VARIANT": "Debug"},
	}
	if got := r.lock.Variants[0].Image; !reflect.DeepEqual(got.Settings, debug) || !reflect.DeepEqual(got.Services.Mask, []string{"tmp.mount", "a.service"}) {
		t.Errorf("got  %+v\nwant %+v", got.Settings, debug)
	}
	if !reflect.DeepEqual(r.lock.Image.Settings, want) {
		t.Errorf("the variant changed the image: %+v", r.lock.Image.Settings)
	}
	var sets []string
	for _, s := range r.lock.Sets {
		sets = append(sets, s.Name+" "+s.Scriptlets)
	}
	if got := strings.Join(sets, ","); got != "initrd skip,initrd+debug skip,root ,root+debug skip,tools " {
		t.Errorf("got %q", got)
	}
}

// TestNoSettings has locks as they were: what is not asked for leaves no trace.
func TestNoSettings(t *testing.T) {
	m := parseSettings(t, head+"image: {docs: true, users: [], sysctl: {}}\nvariants: {debug: {image: {docs: true}}}\n")
	if s := m.Image.settings(); s != nil {
		t.Errorf("got %+v", s)
	}
	b, err := json.Marshal(image(m.Image))
	if err != nil || bytes.Contains(b, []byte("settings")) || bytes.Contains(b, []byte("mask")) {
		t.Errorf("got %s, %v", b, err)
	}
	if s := (&Settings{NoDocs: true}).withDocs(m.Variants["debug"].Image.Docs); s != nil {
		t.Errorf("got %+v", s)
	}
}

func TestSettingsErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"sets: {root: {scriptlets: no}}", `m:4: sets.root.scriptlets: got "no"; want run or skip`},
		{"sets: {tools: {scriptlets: skip}}", "m:4: sets.tools.scriptlets: the tools are unpacked only: no scriptlet of theirs is run in any case"},
		{"image: {user: []}", `m:4: image: unknown key "user"; did you mean "users"?`},
		{"image:\n  users:\n  - {name: a}\n  - {name: A}", `m:7: image.users[1].name: "A" is not the name of a user: want lower-case letters, digits, '.', '_' and '-'`},
		{"image:\n  users:\n  - {name: a}\n  - {name: a}", `m:7: image.users[1].name: "a" is there twice`},
		{"image: {users: [{uid: 4}]}", `m:4: image.users[0].name: "" is not the name of a user: want lower-case letters, digits, '.', '_' and '-'`},
		{"image: {users: [{name: a, uid: -1}]}", `m:4: image.users[0].uid: want a whole number, got "-1"`},
		{"image: {users: [{name: a, gid: 4294967295}]}", `m:4: image.users[0].gid: got 4294967295; want at most 4294967294`},
		{"image: {users: [{name: a, password: secret}]}", "m:4: image.users[0].password: want locked, or a hash as mkpasswd and openssl passwd -6 print it"},
		{"image: {users: [{name: a, password: \"$6$a:b\"}]}", "m:4: image.users[0].password: want locked, or a hash as mkpasswd and openssl passwd -6 print it"},
		{"image: {users: [{name: a, home: \"/a:b\"}]}", `m:4: image.users[0].home: "/a:b" is not an absolute path of letters, digits and ._@+-`},
		{"image: {users: [{name: a, shell: bash}]}", `m:4: image.users[0].shell: "bash" is not an absolute path of letters, digits and ._@+-`},
		{"image: {users: [{name: a, groups: [B]}]}", `m:4: image.users[0].groups[0]: "B" is not the name of a group`},
		{"image: {users: [{name: a, sshKeys: [keys/a.pub]}]}", `m:4: image.users[0].sshKeys[0]: "keys/a.pub" is not a public key as authorized_keys has it`},
		{"image: {users: [{name: a, sshKeys: [\"%KEY\\n%KEY\"]}]}", "m:4: image.users[0].sshKeys[0]: more than one line"},
		{"image: {groups: [{name: a, gid: 1}, {name: a}]}", `m:4: image.groups[1].name: "a" is there twice`},
		{"image: {groups: [{name: \"a:b\"}]}", `m:4: image.groups[0].name: "a:b" is not the name of a group`},
		{"image: {hostname: a_b}", `m:4: image.hostname: "a_b" is not a host name of at most 64 letters, digits, '-' and '.'`},
		{"image: {locale: \"de DE\"}", `m:4: image.locale: "de DE" is not a locale, such as C.UTF-8 or de_DE.UTF-8`},
		{"image: {timezone: ../etc/shadow}", `m:4: image.timezone: "../etc/shadow" is not a time zone, such as UTC or Europe/Berlin`},
		{"image: {services: {mask: [a]}}", `m:4: image.services.mask[0]: "a" is not the name of a unit, such as agent.service`},
		{"image:\n  services:\n    enable: [a.service]\n    mask: [a.service]", "m:7: image.services.mask[0]: a.service is enabled too, and what is masked cannot start"},
		{"image: {services: {mask: [a.service]}}\nvariants:\n  debug:\n    image: {services: {enable: [a.service]}}", "m:7: variants.debug.image.services.mask[0]: a.service is enabled too, and what is masked cannot start"},
		{"image: {sysctl: {ip_forward: 1}}", "m:4: image.sysctl.ip_forward: want the name of a kernel parameter, such as net.ipv4.ip_forward"},
		{"image: {sysctl: {kernel.a: \"1\\nb\"}}", `m:4: image.sysctl.kernel.a: "1\nb" is not the value of a kernel parameter`},
		{"image: {modprobe: {deny: [\"a b\"]}}", `m:4: image.modprobe.deny[0]: "a b" is not the name of a kernel module, such as usb-storage`},
		{"sets: {initrd: {modules: [dm-verity]}}\nimage: {modprobe: {deny: [dm_verity]}}", "m:5: image.modprobe.deny[0]: dm_verity is one of the initrd's modules"},
		{"image: {remove: [usr/share]}", `m:4: image.remove[0]: "usr/share" is not an absolute path or a pattern of one, such as /usr/share/games or /etc/*.orig`},
		{"image: {remove: [/usr, \"/a[\"]}", `m:4: image.remove[1]: "/a[" is not an absolute path or a pattern of one, such as /usr/share/games or /etc/*.orig`},
		{"image: {remove: [/]}", `m:4: image.remove[0]: "/" is not an absolute path or a pattern of one, such as /usr/share/games or /etc/*.orig`},
		{"image: {version: 1 b}", `m:4: image.version: got "1 b"; want lower-case letters, digits, '.', '_' and '-'`},
		{"image: {osRelease: {id: x}}", "m:4: image.osRelease.id: want a field's name in capitals, such as VARIANT_ID"},
		{"image: {osRelease: {ID: \"a\\nb\"}}", `m:4: image.osRelease.ID: "a\nb" is not one line of text`},
		{"image: {version: a, osRelease: {IMAGE_VERSION: b}}", "m:4: image.osRelease.IMAGE_VERSION: it is given by image.version"},
		{"variants: {debug: {image: {users: [{name: A}]}}}", `m:4: variants.debug.image.users[0].name: "A" is not the name of a user: want lower-case letters, digits, '.', '_' and '-'`},
	} {
		_, err := ParseManifest("m", []byte(head+strings.ReplaceAll(tt.text, "%KEY", testSSHKey)+"\n"))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// settingsSample is a lock that has every setting.
func settingsSample() *Lock {
	l := sample()
	uid, gid := uint32(1000), uint32(0)
	l.Image.Services.Mask = []string{"c.service"}
	l.Image.Settings = &Settings{
		Users:  []User{{Name: "admin", UID: &uid, GID: &gid, Groups: []string{"wheel"}, Home: "/home/a", Shell: "/bin/sh", Password: PasswordLocked, SSHKeys: []string{testSSHKey}}},
		Groups: []Group{{Name: "wheel", GID: &gid}}, Hostname: "podvm", Locale: "C.UTF-8", Timezone: "UTC", Sysctl: map[string]string{"kernel.sysrq": "0"},
		DenyModules: []string{"floppy"}, Remove: []string{"/usr/share/x*"}, NoDocs: true, Version: "1.0", OSRelease: map[string]string{"VARIANT_ID": "podvm"},
	}
	l.Sets[0].Scriptlets = ScriptletsSkip
	return l
}

func TestSettingsRoundTrip(t *testing.T) {
	want := settingsSample()
	b := format(t, want)
	got, err := Parse("l", b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) || !bytes.Equal(format(t, got), b) {
		t.Errorf("got\n%s\nwant\n%s", format(t, got), b)
	}
}

// TestParseLockSettings edits locks: what the manifest could not say the lock
// may not say either.
func TestParseLockSettings(t *testing.T) {
	for _, tt := range []struct{ old, new, want string }{
		{`"hostname": "podvm"`, `"hostname": "a b"`, "[hostname]: \"a b\" is not a host name"},
		{`"password": "locked"`, `"password": "x:0"`, "[users 0 password]: want locked"},
		{`"scriptlets": "skip"`, `"scriptlets": "some"`, `scriptlets "some" is not known`},
		{`"uid": 1000`, `"uid": -1`, "want a whole number"},
	} {
		b := bytes.Replace(format(t, settingsSample()), []byte(tt.old), []byte(tt.new), 1)
		if _, err := Parse("l", b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.new, err, tt.want)
		}
	}
	l := sample()
	l.Image.Settings = &Settings{}
	if _, err := Parse("l", format(t, l)); err == nil || !strings.Contains(err.Error(), "want the key to be left out") {
		t.Errorf("got %v", err)
	}
}
