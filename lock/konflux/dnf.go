package konflux

import (
	"fmt"
	"slices"
	"strings"
)

// isManager tells whether a program is the package manager.
func isManager(name string) bool {
	switch name[strings.LastIndexByte(name, '/')+1:] {
	case "dnf", "dnf-3", "dnf4", "dnf5", "yum", "microdnf", "dnf-builddep", "yum-builddep":
		return true
	}
	return false
}

// Options that take the next word as their value, where it is not after "=".
var (
	dnfShortValues = "cdexR"
	dnfLongValues  = []string{
		"advisories", "advisory", "arch", "bz", "bzs", "color", "comment", "config", "cve", "cves", "debuglevel", "destdir", "disable-repo",
		"disableexcludes", "disableplugin", "disablerepo", "downloaddir", "enable-repo", "enableplugin", "enablerepo", "errorlevel", "exclude",
		"excludepkgs", "forcearch", "from-repo", "installroot", "randomwait", "releasever", "repo", "repofrompath", "repoid", "rpmverbosity",
		"sec-severity", "secseverity", "setopt", "setvar", "use-host-config-file",
	}
	// dnfNothing are commands that install nothing.
	dnfNothing = []string{
		"alias", "autoremove", "check", "check-update", "check-upgrade", "clean", "config-manager", "copr", "deplist", "erase", "help", "history", "info",
		"list", "makecache", "mark", "needs-restarting", "needs_restarting", "provides", "remove", "repoinfo", "repolist", "repoquery", "rm", "search",
		"updateinfo", "versionlock", "whatprovides",
	}
)

// dnfLine is a command line of the package manager, taken apart.
type dnfLine struct {
	words       []string // the command and its arguments
	erasing     bool
	installRoot bool
	help        bool
}

func parseDNF(args []string) dnfLine {
	var l dnfLine
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, long := strings.CutPrefix(a, "--")
		name, _, valued := strings.Cut(name, "=")
		switch {
		case a == "--":
			l.words = append(l.words, args[i+1:]...)
			return l
		case long:
			l.erasing = l.erasing || name == "allowerasing"
			l.installRoot = l.installRoot || name == "installroot"
			l.help = l.help || name == "help" || name == "version"
			if !valued && slices.Contains(dnfLongValues, name) {
				i++
			}
		case len(a) > 1 && a[0] == '-':
			l.help = l.help || a == "-h"
			if len(a) == 2 && strings.Contains(dnfShortValues, a[1:]) {
				i++
			}
		case a != "":
			l.words = append(l.words, a)
		}
	}
	return l
}

// addDNF notes what a command line of the package manager asks for.
func (r *Requests) addDNF(tool string, args []string, at string) error {
	l := parseDNF(args)
	if strings.HasSuffix(tool, "-builddep") {
		l.words = append([]string{"builddep"}, l.words...)
	}
	if len(l.words) == 0 || l.help {
		return nil
	}
	r.AllowErasing = r.AllowErasing || l.erasing
	if l.installRoot && r.InstallRoot == "" {
		r.InstallRoot = at
	}
	return r.addCommand(l.words[0], l.words[1:])
}

// addCommand notes what one command of the package manager asks for.
func (r *Requests) addCommand(cmd string, rest []string) error {
	switch cmd {
	case "install", "localinstall", "install-n", "install-na", "install-nevra", "in":
		r.Install = append(r.Install, rest...)
	case "reinstall", "rei":
		r.Reinstall = append(r.Reinstall, rest...)
	case "upgrade", "update", "up", "upgrade-minimal", "update-minimal", "localupdate":
		r.Upgrade = append(r.Upgrade, rest...)
	case "builddep", "build-dep":
		r.BuildDep = append(r.BuildDep, rest...)
	case "groupinstall", "group-install", "grpinstall":
		r.addGroups(rest)
	case "group", "groups", "grp", "environment":
		if len(rest) > 0 && (rest[0] == "install" || rest[0] == "upgrade" || rest[0] == "update") {
			r.addGroups(rest[1:])
		}
	case "module":
		return r.addModules(rest)
	case "swap":
		if len(rest) != 2 {
			return fmt.Errorf("swap: want two packages, got %q", rest)
		}
		r.AllowErasing = true
		r.Install = append(r.Install, rest[1])
	default:
		if !slices.Contains(dnfNothing, cmd) {
			return fmt.Errorf("%q: what it installs cannot be locked; name that under packages, and the file without packagesFromContainerfile", cmd)
		}
	}
	return nil
}

func (r *Requests) addGroups(names []string) {
	for _, n := range names {
		r.Install = append(r.Install, "@"+strings.TrimPrefix(n, "@"))
	}
}

func (r *Requests) addModules(words []string) error {
	if len(words) == 0 {
		return nil
	}
	switch rest := words[1:]; words[0] {
	case "enable":
		r.ModuleEnable = append(r.ModuleEnable, rest...)
	case "disable":
		r.ModuleDisable = append(r.ModuleDisable, rest...)
	case "install", "switch-to", "update":
		r.addGroups(rest)
	case "reset", "list", "info", "provides", "remove", "repoquery":
	default:
		return fmt.Errorf("module %q: want enable, disable, install, switch-to or reset", words[0])
	}
	return nil
}
