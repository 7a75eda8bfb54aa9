package main

import (
	"embed"
	"fmt"
	"path"
	"strings"

	"caisson/cmd/debrepo/rpmwrite"
)

// scriptletFiles are the bodies of scriptlets and triggers; the ending of the name says what runs them.
//
//go:embed scriptlets
var scriptletFiles embed.FS

// What Debian's maintainer scripts do that matters is done by file triggers of the package that has the tool, so that
// it happens once, at the end, whatever was installed. Higher priorities run first: accounts before the files that they own.
var triggers = map[string][]struct {
	file     string
	path     string
	priority uint32
}{
	"systemd": {
		{"sysusers.sh", "/usr/lib/sysusers.d", 1000400},
		{"catalog.sh", "/usr/lib/systemd/catalog", 1000300},
		{"tmpfiles.sh", "/usr/lib/tmpfiles.d", 1000100},
	},
	"udev": {{"hwdb.sh", "/usr/lib/udev/hwdb.d", 1000300}},
	"kmod": {{"depmod.lua", "/usr/lib/modules", 1000300}},
	// This package makes systemd the system's init; an initrd does without it, and without the presets.
	"systemd-sysv": {{"presets.sh", "/usr/lib/systemd/system", 1000200}},
}

// addScripts gives p its scriptlets and triggers, and whatever else its maintainer script would have made.
func addScripts(p *rpmwrite.Package, postinst string) error {
	for _, t := range triggers[p.Name] {
		body, prog, err := scriptlet(t.file)
		if err != nil {
			return err
		}
		p.Triggers = append(p.Triggers, rpmwrite.Trigger{Paths: []string{t.path}, Priority: t.priority, Prog: prog, Body: body})
	}
	switch p.Name {
	case "bash":
		p.Provides = append(p.Provides, rpmwrite.Dep{Name: "/bin/sh"}, rpmwrite.Dep{Name: "/usr/bin/sh"})
	case "filesystem":
		body, prog, err := scriptlet("mountpoints.lua")
		if err != nil {
			return err
		}
		p.Scripts = append(p.Scripts, rpmwrite.Script{Kind: rpmwrite.PreIn, Prog: prog, Body: body})
	case "systemd-sysv":
		p.Files = append(p.Files, rpmwrite.File{
			Path: "/etc/systemd/system/default.target", Target: "/lib/systemd/system/multi-user.target",
			Mode: rpmwrite.TypeLink | 0o777, Owner: "root", Group: "root", MTime: p.BuildTime, Flags: rpmwrite.Config | rpmwrite.NoReplace,
		})
	}
	if links := alternatives(postinst); len(links) > 0 {
		p.Scripts = append(p.Scripts, rpmwrite.Script{Kind: rpmwrite.PostIn, Prog: "<lua>", Body: alternativesScript(links)})
	}
	return nil
}

// scriptlet reads an embedded one, and says by its name what runs it.
func scriptlet(name string) (body, prog string, err error) {
	b, err := scriptletFiles.ReadFile("scriptlets/" + name)
	prog = "/bin/sh"
	if path.Ext(name) == ".lua" {
		prog = "<lua>"
	}
	return string(b), prog, err
}

// link is a symbolic link that update-alternatives would have made.
type link struct{ path, target string }

// alternatives are the links that a maintainer script installs by update-alternatives, in order: those whose arguments are constants.
// Manual pages are left out.
func alternatives(postinst string) []link {
	var links []link
	add := func(l, target string) {
		l, target = rpmPath(l), rpmPath(target)
		if strings.HasPrefix(l, "/usr/share/man/") || strings.ContainsAny(l+target, "$`\"'\\") {
			return
		}
		if path.Dir(l) == path.Dir(target) {
			target = path.Base(target)
		}
		links = append(links, link{l, target})
	}
	for line := range strings.Lines(strings.ReplaceAll(postinst, "\\\n", " ")) {
		line, _, _ = strings.Cut(line, " #")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "update-alternatives" {
			continue
		}
		for i := 0; i < len(words); i++ {
			if (words[i] == "--install" || words[i] == "--slave") && i+3 < len(words) {
				add(words[i+1], words[i+3])
				i += 3
			}
		}
	}
	return links
}

// alternativesScript makes the links that do not exist: the first package that is installed wins.
func alternativesScript(links []link) string {
	var b strings.Builder
	b.WriteString("-- Debian's alternatives: the first one that is installed is used.\nlocal links = {\n")
	for _, l := range links {
		fmt.Fprintf(&b, "  {%q, %q},\n", l.path, l.target)
	}
	b.WriteString("}\nfor _, link in ipairs(links) do\n  if not posix.stat(link[1]) then\n    assert(posix.symlink(link[2], link[1]))\n  end\nend\n")
	return b.String()
}
