package start

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/shell"

	"caisson/lock"
)

// ksSection is a section of a kickstart: from %packages, %post or another to
// %end.
type ksSection struct {
	name, args string
	line       int // of its head
	lines      []string
}

// ksCommand is a command before and between the sections.
type ksCommand struct {
	name string
	args []string
	text string // to show it: without secrets
	line int
}

// secretOption is an option whose value is, or may be, a secret: a password, a
// passphrase, the key of a wireless network or of a subscription.
var secretOption = regexp.MustCompile(`(--\S*(?:pass|secret|token|wpakey|wepkey|activation-key)[^\s=]*[= ])("[^"]*"|'[^']*'|\S+)`)

// ksCommands are all that kickstarts may have, or have had.
var ksCommands = strings.Fields(`auth authconfig authselect autopart autostep bootc bootloader btrfs cdrom clearpart cmdline device deviceprobe dmraid
	driverdisk eula fcoe firewall firstboot graphical group halt harddrive hmc ignoredisk install interactive iscsi iscsiname key keyboard lang
	langsupport lilo lilocheck liveimg logging logvol mediacheck method module monitor mount mouse multipath network nfs nvdimm ostreecontainer
	ostreesetup part partition poweroff raid rdp realm reboot repo reqpart rescue rhsm rootpw selinux services shutdown skipx snapshot sshkey
	sshpw syspurpose text timesource timezone unsupported_hardware updates upgrade url user vnc volgroup xconfig zerombr zfcp zipl`)

// parseKickstart takes a kickstart apart, as pykickstart does.
func parseKickstart(name string, b []byte) (commands []ksCommand, sections []ksSection, err error) {
	var in *ksSection
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		text := strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(text)
		word, rest, _ := strings.Cut(trimmed, " ")
		switch {
		case in != nil && word == "%end":
			sections, in = append(sections, *in), nil
		case in != nil:
			in.lines = append(in.lines, text)
		case word == "%end":
			return nil, nil, fmt.Errorf("%s:%d: %%end, and no section is open", name, n)
		case word == "%include" || word == "%ksappend":
			commands = append(commands, ksCommand{word, []string{rest}, trimmed, n})
		case strings.HasPrefix(word, "%"):
			if !slices.Contains([]string{"%packages", "%post", "%pre", "%pre-install", "%addon", "%anaconda", "%traceback", "%onerror", "%certificate"}, word) {
				return nil, nil, fmt.Errorf("%s:%d: %q is no section of a kickstart", name, n, shorten(word))
			}
			in = &ksSection{name: word, args: rest, line: n}
		case trimmed == "" || trimmed[0] == '#':
		default:
			words, err := shell.Fields(strings.ReplaceAll(trimmed, "$", `\$`), func(string) string { return "" })
			if err != nil || len(words) == 0 {
				return nil, nil, fmt.Errorf("%s:%d: %q: quotes that do not match", name, n, shorten(word))
			}
			if !slices.Contains(ksCommands, words[0]) {
				return nil, nil, fmt.Errorf("%s:%d: %q is no command of a kickstart", name, n, shorten(words[0]))
			}
			commands = append(commands, ksCommand{words[0], words[1:], secretOption.ReplaceAllString(trimmed, "$1…"), n})
		}
	}
	if in != nil {
		return nil, nil, fmt.Errorf("%s:%d: %s has no %%end", name, in.line, in.name)
	}
	return commands, sections, nil
}

// option is the value of --name=value or --name value; ok where it is there.
func (c *ksCommand) option(name string) (string, bool) {
	for i, a := range c.args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return v, true
		}
		if a == "--"+name {
			if i+1 < len(c.args) && !strings.HasPrefix(c.args[i+1], "--") {
				return c.args[i+1], true
			}
			return "", true
		}
	}
	return "", false
}

func (c *ksCommand) get(name string) string { v, _ := c.option(name); return v }
func (c *ksCommand) has(name string) bool   { _, ok := c.option(name); return ok }

// list is an option's values, joined by commas.
func (c *ksCommand) list(name string) []string {
	return strings.FieldsFunc(c.get(name), func(r rune) bool { return r == ',' || r == ' ' })
}

// word is the last argument that is no option.
func (c *ksCommand) word() string {
	for _, a := range slices.Backward(c.args) {
		if !strings.HasPrefix(a, "--") {
			return a
		}
	}
	return ""
}

// kickstart reads a kickstart.
func (d *draft) kickstart(name string, b []byte) error {
	commands, sections, err := parseKickstart(name, b)
	if err != nil {
		return err
	}
	for i := range commands {
		c := &commands[i]
		if !d.ksSystem(c) && !d.ksAccount(c) && !d.ksSource(c) {
			d.ksOther(c)
		}
	}
	for i := range sections {
		s := &sections[i]
		switch s.name {
		case "%packages":
			d.ksPackages(s)
		case "%post":
			d.ksPost(s)
		default:
			d.note(s.line, s.name+" "+s.args, "it is the installer's, and nothing is installed by one")
		}
	}
	return nil
}

// ksSystem takes over what the system is set to.
func (d *draft) ksSystem(c *ksCommand) bool {
	switch c.name {
	case "lang":
		d.try(c.line, c.text, func(m *lock.Manifest) { m.Image.Locale = c.word() })
		if c.has("addsupport") {
			d.note(c.line, "--addsupport", "name the packages of these languages (glibc-langpack-…)")
		}
	case "timezone":
		zone := c.word()
		if len(c.args) > 0 && !strings.HasPrefix(c.args[0], "--") {
			zone = c.args[0]
		}
		d.try(c.line, c.text, func(m *lock.Manifest) { m.Image.Timezone = zone })
		if c.has("ntpservers") {
			d.note(c.line, "--ntpservers", "put chrony's configuration into an overlay")
		}
	case "services":
		d.services(c.line, "enable", c.list("enabled")...)
		d.services(c.line, "disable", c.list("disabled")...)
	case "bootloader":
		d.cmdline(c.line, c.get("append"))
	case "selinux":
		switch {
		case c.has("permissive"):
			d.cmdline(c.line, "enforcing=0")
		case c.has("disabled"):
			d.cmdline(c.line, "selinux=0")
		}
	case "network":
		if h := c.get("hostname"); h != "" && !strings.HasPrefix(h, "localhost") {
			d.try(c.line, c.text, func(m *lock.Manifest) { m.Image.Hostname = h })
		}
		if len(c.args) > 1 || !c.has("hostname") {
			d.note(c.line, c.text, "how the network is set up belongs into an overlay, as files of NetworkManager or systemd-networkd")
		}
	default:
		return false
	}
	return true
}

// ksAccount takes over users and groups.
func (d *draft) ksAccount(c *ksCommand) bool {
	id := func(name string) *uint32 {
		n, err := strconv.ParseUint(c.get(name), 10, 32)
		if err != nil {
			return nil
		}
		v := uint32(n)
		return &v
	}
	switch c.name {
	case "rootpw":
		u := lock.User{Name: "root", Password: lock.PasswordLocked}
		if !c.has("lock") {
			u.Password = d.password(c.line, "root", c.word(), c.has("iscrypted"))
		}
		if u.Password != "" {
			d.user(c.line, "rootpw", u)
		}
	case "user":
		u := lock.User{Name: c.get("name"), UID: id("uid"), GID: id("gid"), Home: c.get("homedir"), Shell: c.get("shell"), Groups: c.list("groups")}
		u.Password = d.password(c.line, u.Name, c.get("password"), c.has("iscrypted"))
		if c.has("lock") {
			u.Password = lock.PasswordLocked
		}
		d.user(c.line, "user "+u.Name, u)
	case "sshkey":
		d.user(c.line, "sshkey", lock.User{Name: c.get("username"), SSHKeys: []string{c.word()}})
	case "group":
		d.try(c.line, c.text, func(m *lock.Manifest) {
			m.Image.Groups = append(m.Image.Groups, lock.Group{Name: c.get("name"), GID: id("gid")})
		})
	default:
		return false
	}
	return true
}

// ksSource takes over where packages are from.
func (d *draft) ksSource(c *ksCommand) bool {
	switch c.name {
	case "repo", "url":
		r := lock.ManifestRepo{
			ID: c.get("name"), Metalink: c.get("metalink"), Mirrorlist: c.get("mirrorlist"), ExcludePkgs: c.list("excludepkgs"), IncludePkgs: c.list("includepkgs"),
			Proxy: c.get("proxy"), SSLCACert: c.get("sslcacert"), SSLClientCert: c.get("sslclientcert"), SSLClientKey: c.get("sslclientkey"),
		}
		base := c.get("baseurl")
		if c.name == "url" {
			r.ID, base = "install", c.get("url")
		}
		if cost, err := strconv.Atoi(c.get("cost")); err == nil {
			r.Cost = &cost
		}
		if strings.HasPrefix(base, "file:///run/install/") {
			d.note(c.line, c.text, "it is on the installation medium: name that in inputs.files, and the repository as iso: NAME/FOLDER")
			return true
		}
		if base != "" && !strings.Contains(base, "://") {
			d.note(c.line, c.text, "its address has no scheme: http:// is taken for it")
			base = "http://" + strings.TrimLeft(base, "/")
		}
		if base != "" {
			r.BaseURL = lock.StringList{base}
		}
		d.repo(c.line, r)
		if c.has("noverifyssl") {
			d.note(c.line, "--noverifyssl", "certificates are always checked; name the authority in sslcacert")
		}
	case "cdrom", "harddrive", "nfs", "hmc":
		d.note(c.line, c.text, "the installation medium is an input with its SHA-256: name it in inputs.files, and its repositories as iso: NAME/FOLDER")
	case "module":
		if n := c.get("name"); n != "" {
			if s := c.get("stream"); s != "" {
				n += ":" + s
			}
			d.try(c.line, c.text, func(m *lock.Manifest) {
				if c.has("disable") {
					add(&m.RPM.ModuleDisable, n)
				} else {
					add(&m.RPM.ModuleEnable, n)
				}
			})
		}
	default:
		return false
	}
	return true
}

// ksOther notes the other commands, but for those that only say how the
// installer behaves.
func (d *draft) ksOther(c *ksCommand) {
	switch c.name {
	case "text", "graphical", "cmdline", "reboot", "poweroff", "shutdown", "halt", "firstboot", "skipx", "eula", "logging", "mediacheck", "updates",
		"rescue", "vnc", "rdp", "sshpw", "install", "upgrade", "autostep", "interactive", "driverdisk", "unsupported_hardware", "zerombr", "clearpart", "ignoredisk":
		// The installer's own.
	case "part", "partition", "autopart", "logvol", "volgroup", "raid", "btrfs", "reqpart", "mount", "snapshot":
		d.note(c.line, c.text, "the disk has an ESP, the root and its hash tree: give sizes in image.disk, and space at run time in image.scratch")
	case "firewall":
		d.note(c.line, c.text, "put the firewall's configuration into an overlay, or write a run step with firewall-offline-cmd")
	case "auth", "authconfig", "authselect":
		d.note(c.line, c.text, "write a run step: chroot \"$ROOT\" authselect …")
	case "keyboard":
		keymap := c.get("vckeymap")
		if keymap == "" && len(c.args) > 0 && !strings.HasPrefix(c.args[0], "--") {
			keymap = c.args[0]
		}
		if keymap != "" {
			d.text(c.line, c.text, "KEYMAP="+quote(keymap)+"\n", "/etc/vconsole.conf")
		}
		if c.has("xlayouts") {
			d.note(c.line, "--xlayouts", "an image has no graphical console: put the configuration of one into an overlay")
		}
	case "rhsm", "syspurpose":
		d.note(c.line, c.text, "an entitlement is a certificate: name it in the repositories' sslclientcert and sslclientkey")
	case "%include", "%ksappend":
		d.note(c.line, c.text, "give that file to `caisson init` too")
	default:
		d.note(c.line, c.text, "it has no counterpart")
	}
}

// ksPackages takes over %packages. Unless it says --nocore there is @core.
func (d *draft) ksPackages(s *ksSection) {
	if !strings.Contains(s.args, "--nocore") {
		d.packages(s.line, lock.SetRoot, "@core")
	}
	off := false
	for _, o := range strings.Fields(s.args) {
		switch o, _, _ := strings.Cut(o, "="); strings.ToLower(o) {
		case "--nocore", "--ignoremissing", "--default", "--timeout", "--retries":
		case "--exclude-weakdeps", "--excludeweakdeps":
			d.m.RPM.WeakDeps = &off
		case "--excludedocs", "--nodocs":
			d.m.Image.Docs = &off
		default:
			d.note(s.line, s.name+" "+o, "it has no counterpart")
		}
	}
	for i, text := range s.lines {
		line := s.line + 1 + i
		text, _, _ = strings.Cut(text, "#")
		text = strings.TrimSpace(text)
		name, out := strings.CutPrefix(text, "-")
		if strings.HasPrefix(name, "@") {
			// Options of a group are none of its name: "@core --nodefaults".
			group, options, _ := strings.Cut(name, " ")
			if options != "" {
				d.note(line, text, "options of a group have no counterpart")
			}
			name = "@" + strings.TrimLeft(group, "@^")
		}
		switch {
		case text == "":
		case strings.HasPrefix(text, "%"):
			d.note(line, text, "give that file to `caisson init` too")
		case out && strings.HasPrefix(name, "@"):
			d.note(line, text, "a group cannot be excluded: leave out the one that brings it, or exclude its packages")
		case out:
			d.exclude(line, name)
		default:
			d.packages(line, lock.SetRoot, name)
		}
	}
}

var interpreterOption = regexp.MustCompile(`--interpreter[= ](\S+)`)

// ksPost makes a run step of %post.
func (d *draft) ksPost(s *ksSection) {
	what := "%post " + s.args
	if strings.Contains(s.args, "--nochroot") {
		d.note(s.line, what, "it changes the installer's system: what it copies has to be an input, an overlay or a run step")
		return
	}
	script := strings.Join(s.lines, "\n")
	if strings.TrimSpace(script) == "" {
		return
	}
	if strings.Contains(script, "\x00") {
		d.note(s.line, what, "it has a NUL in it")
		return
	}
	run := "/bin/sh"
	if m := interpreterOption.FindStringSubmatch(s.args); m != nil {
		run = path.Clean(m[1])
	}
	option := " -c"
	switch {
	case strings.Contains(run, "python"):
	case slices.Contains([]string{"sh", "bash", "dash", "ksh"}, path.Base(run)):
		if strings.Contains(s.args, "--erroronfail") {
			option = " -ec"
		}
	case path.Base(run) == "perl":
		option = " -e"
	default:
		d.note(s.line, what, "its interpreter is not known here")
		return
	}
	if d.step(s.line, what, "The %post of "+shorten(d.at)+", line "+strconv.Itoa(s.line)+": see that it needs no network, no disk and no running system.",
		inRoot(quote(run)+option, script)) {
		d.note(s.line, what, "it is a run step now, which has no network, no disks, no boot loader and no running system: take out what needs them")
	}
}
