package start

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"caisson/lock"
)

// distro is the distribution that the files are for, as os-release calls it:
// an ID and a VERSION_ID. Both are empty where no file says.
type distro struct{ id, release string }

// is says which distribution the files are for; the first that says so counts.
func (d *draft) is(id, release string) {
	id = strings.ToLower(id)
	if strings.HasPrefix(id, "ubi") || id == "rhel-ubi" {
		id = "rhel"
	}
	if d.distro.id == "" {
		d.distro.id = id
	}
	if d.distro.release == "" && (id == "" || id == d.distro.id) {
		d.distro.release = strings.TrimSuffix(release, "-stream")
	}
}

var releaseNumber = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

// places are the repositories of the distribution; none where its address is
// not known here.
func (d distro) places() []lock.ManifestRepo {
	major, _, _ := strings.Cut(d.release, ".")
	if !releaseNumber.MatchString(d.release) {
		return nil
	}
	switch d.id {
	case "centos":
		key := "https://www.centos.org/keys/RPM-GPG-KEY-CentOS-Official"
		if major != "9" {
			key += "-SHA256"
		}
		var out []lock.ManifestRepo
		for _, name := range []string{"BaseOS", "AppStream"} {
			out = append(out, lock.ManifestRepo{
				ID: strings.ToLower(name), GPGKey: []string{key},
				BaseURL: lock.StringList{fmt.Sprintf("https://mirror.stream.centos.org/%s-stream/%s/$basearch/os/", major, name)},
			})
		}
		return out
	case "fedora":
		key := []string{"https://fedoraproject.org/fedora.gpg"}
		address := "https://mirrors.fedoraproject.org/metalink?repo=%s" + major + "&arch=$basearch"
		return []lock.ManifestRepo{
			{ID: "fedora", Metalink: fmt.Sprintf(address, "fedora-"), GPGKey: key},
			{ID: "updates", Metalink: fmt.Sprintf(address, "updates-released-f"), GPGKey: key},
		}
	case "rhel":
		var out []lock.ManifestRepo
		for _, name := range []string{"baseos", "appstream"} {
			out = append(out, lock.ManifestRepo{
				ID:      fmt.Sprintf("rhel-%s-for-$basearch-%s-rpms", major, name),
				BaseURL: lock.StringList{fmt.Sprintf("https://cdn.redhat.com/content/dist/rhel%s/%s/$basearch/%s/os", major, major, name)},
				GPGKey:  []string{"keys/RPM-GPG-KEY-redhat-release"}, SSLClientCert: "$SSL_CLIENT_CERT", SSLClientKey: "$SSL_CLIENT_KEY",
				SSLCACert: "/etc/rhsm/ca/redhat-uep.pem",
			})
		}
		return out
	}
	return nil
}

// releasePackage has the distribution's os-release.
func (d distro) releasePackage() string {
	switch d.id {
	case "centos":
		return "centos-stream-release"
	case "fedora":
		return "fedora-release"
	case "rhel":
		return "redhat-release"
	}
	return "system-release" // what these provide
}

// isDebian tells whether packages have Debian's names: as RPMs there are such of
// a repository of one's own.
func (d distro) isDebian() bool { return slices.Contains([]string{"debian", "ubuntu", "kali"}, d.id) }

// names are packages that every image needs, as the distribution calls them.
func (d distro) names() (stub string, initrd, kernel []string) {
	if d.isDebian() {
		initrd = []string{"base-files", "bash", "coreutils", "util-linux", "mount", "systemd", "udev", "kmod", "dmsetup"}
		return "systemd-boot-efi", initrd, []string{"linux-image-amd64"}
	}
	initrd = []string{"systemd", "systemd-udev", "util-linux", "kmod", "device-mapper", d.releasePackage()}
	return "systemd-boot-unsigned", initrd, []string{"kernel-core", "kernel-modules-core"}
}

// fill adds what an image needs and no file said, with comments.
func (d *draft) fill() {
	d.called("podvm")
	if len(d.m.Arches) == 0 {
		d.m.Arches = []string{"x86_64"}
	}
	d.comments["name"] = "What the image is called; its files are too."
	d.fillRepos()
	d.fillSets()
	d.fillCmdline()
}

func (d *draft) fillRepos() {
	rpm := &d.m.RPM
	if len(rpm.Repos) == 0 && rpm.From == "" {
		if rpm.Repos = d.distro.places(); len(rpm.Repos) > 0 {
			d.comments["rpm.repos"] = "Where the distribution has its packages: check addresses and keys."
			if d.distro.id == "rhel" {
				d.comments["rpm.repos"] += "\nThe certificate of an entitled machine is in /etc/pki/entitlement, the key in /etc/pki/rpm-gpg."
			}
		} else {
			d.comments["rpm.repos"] = "No file says where the packages are: name the repositories, and the keys that they are signed by."
			rpm.Repos = []lock.ManifestRepo{{ID: "base", BaseURL: lock.StringList{"https://mirror.example/$basearch/os/"}, GPGKey: []string{"keys/RPM-GPG-KEY"}}}
		}
	}
	if rpm.Vars["releasever"] == "" && d.uses("$releasever") {
		release := d.distro.release
		if release == "" {
			release = "9"
		}
		d.variable("releasever", release)
		d.comments["rpm.vars"] = "What the repositories' addresses have in place of $releasever: check it."
	}
}

func (d *draft) variable(name, value string) {
	if d.m.RPM.Vars == nil {
		d.m.RPM.Vars = map[string]string{}
	}
	d.m.RPM.Vars[name] = value
}

// uses tells whether an address of a repository has a variable.
func (d *draft) uses(variable string) bool {
	return d.usesVars || slices.ContainsFunc(d.m.RPM.Repos, func(r lock.ManifestRepo) bool {
		return strings.Contains(strings.Join(slices.Concat(r.BaseURL, r.GPGKey), " ")+r.Metalink+r.Mirrorlist+r.ID, variable)
	})
}

func (d *draft) fillSets() {
	m := &d.m
	stub, initrd, kernel := d.distro.names()
	set(m, lock.SetTools, func(s *lock.ManifestSet) {
		add(&s.Packages, "rpm", "bash", "coreutils", "kmod", stub)
		add(&s.Packages, d.tools...)
	})
	d.comments["sets.tools"] = "What the build runs; never in the image. Steps have these programs and no others."
	set(m, lock.SetInitrd, func(s *lock.ManifestSet) {
		add(&s.Packages, initrd...)
		for _, k := range []string{"dm-verity", m.Image.Root.Format, "overlay", "virtio_blk", "virtio_pci", "virtio_scsi"} {
			if k == "" {
				k = lock.RootEROFS
			}
			if !slices.ContainsFunc(m.Image.Modprobe.Deny, func(o string) bool { return strings.ReplaceAll(o, "_", "-") == strings.ReplaceAll(k, "_", "-") }) {
				add(&s.Modules, k)
			}
		}
	})
	d.comments["sets.initrd"] = "The initial RAM disk: what opens the root. Add the drivers of the machines' disks, such as nvme or hv_storvsc."
	root := m.Sets[lock.SetRoot]
	has := func(prefix string) bool {
		match := func(p string) bool { return p == prefix || strings.HasPrefix(p, prefix+"-") }
		for p := range d.known {
			if match(p) {
				return true
			}
		}
		return slices.ContainsFunc(root.Packages, match)
	}
	var missing []string
	if !has("systemd") {
		missing = append(missing, "systemd")
	}
	if !has("kernel") && !has("linux-image") {
		missing = append(missing, kernel...)
	}
	if len(missing) > 0 {
		at := fmt.Sprintf("sets.root.packages[%d]", len(root.Packages))
		set(m, lock.SetRoot, func(s *lock.ManifestSet) { add(&s.Packages, missing...) })
		d.comments[at] = "What every machine needs, and no file names."
	}
	d.fillChroots()
	if d.locked {
		d.comments["sets.root"] = "All packages of rpms.lock.yaml: leave those that you ask for, the others follow."
	}
}

// fillChroots adds to the root what steps run there and packages need not bring.
func (d *draft) fillChroots() {
	root := d.m.Sets[lock.SetRoot]
	at := fmt.Sprintf("sets.root.packages[%d]", len(root.Packages))
	missing := slices.DeleteFunc([]string{"bash", "coreutils"}, func(p string) bool {
		return d.known[p] || slices.Contains(root.Packages, p) || slices.Contains(root.Exclude, p)
	})
	if !d.chroots || len(missing) == 0 {
		return
	}
	set(&d.m, lock.SetRoot, func(s *lock.ManifestSet) { add(&s.Packages, missing...) })
	d.comments[at] = "What the steps run in the root."
}

func (d *draft) fillCmdline() {
	k := &d.m.Image.Kernel
	if k.Cmdline == "" {
		k.Cmdline = "console=ttyS0"
	}
	if !strings.Contains(k.Cmdline, "systemd.volatile=") {
		k.Cmdline += " systemd.volatile=overlay"
		d.comments["image.kernel"] = "The root cannot be written to; with systemd.volatile=overlay changes last until the machine is switched off."
	}
}

// head is the comment at the beginning of the manifest.
func (d *draft) head(read []string) string {
	out := "# Made by `caisson init`"
	if len(read) > 0 {
		for i := range read {
			read[i] = shorten(read[i])
		}
		out += " of " + strings.Join(read, ", ")
	}
	return out + ".\n# Decide what has a comment, then run `caisson lock`.\n"
}
