package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"caisson/build"
)

// initProjects are definitions of other tools that name packages of the demo's
// distribution: by the file that there is, what a person decides in the manifest
// that is made of it, and files that the image has to have, with their accounts.
var initProjects = []struct {
	name, files string
	args        []string
	decide      []string // old and new, as strings.NewReplacer has them
	want        map[string]build.Account
}{
	{
		name: "mkosi", args: []string{"--profile", "debug"},
		decide: []string{"https://mirror.example/$basearch/os/", "http://ADDRESS/", "keys/RPM-GPG-KEY", "KEY"},
		want: map[string]build.Account{
			"/etc/extra": build.Placed, "/etc/postinst": build.Compiled, "/etc/motd": build.Changed, "/usr/bin/strace": build.Vendor,
		},
		files: `-- mkosi.conf --
[Distribution]
Distribution=debian
[Output]
ImageId=converted
[Content]
Bootable=yes
KernelCommandLine=console=ttyS0
Packages=
    systemd-sysv
    login
    dbus
[Config]
MinimumVersion=24
-- mkosi.conf.d/kernel.conf --
[Match]
Architecture=x86-64
[Content]
Packages=linux-image-cloud-amd64
-- mkosi.profiles/debug.conf --
[Content]
Packages=strace
-- mkosi.extra/etc/extra --
extra
-- mkosi.postinst --
#!/bin/bash
set -eu
echo "$DISTRIBUTION $1" > "$BUILDROOT/etc/postinst"
-- mkosi.finalize.chroot --
#!/bin/sh
echo "$PROFILES" >> /etc/motd
`,
	},
	{
		name: "Containerfile",
		decide: []string{"https://mirror.example/$basearch/os/", "http://ADDRESS/", "keys/RPM-GPG-KEY", "KEY", "systemd-boot-unsigned", "systemd-boot-efi",
			"- systemd-udev", "- udev", "- device-mapper", "- dmsetup", "- system-release", "- base-files\n      - mount", "- kernel-core", "- linux-image-cloud-amd64", "      - kernel-modules-core\n", ""},
		want: map[string]build.Account{
			"/opt/app/bin/hello.sh": build.Placed, "/etc/app": build.Compiled, "/etc/systemd/system/multi-user.target.wants/hello.service": build.Compiled,
		},
		files: `-- Containerfile --
ARG DEST=/opt/app
FROM scratch
ARG DEST
RUN dnf install -y systemd-sysv login dbus && dnf clean all
COPY hello.sh $DEST/bin/
COPY <<EOF /etc/systemd/system/hello.service
[Service]
ExecStart=/opt/app/bin/hello.sh
[Install]
WantedBy=multi-user.target
EOF
WORKDIR /etc
RUN systemctl enable hello.service && test -x $DEST/bin/hello.sh || chmod 755 $DEST/bin/hello.sh
RUN <<EOF
$DEST/bin/hello.sh > app
EOF
-- hello.sh --
#!/bin/sh
echo hello
`,
	},
}

// TestE2EInit makes manifests of other tools' definitions, and images of those.
func TestE2EInit(t *testing.T) {
	repo := os.Getenv("CAISSON_DEBREPO")
	if os.Getenv("CAISSON_E2E") == "" || repo == "" {
		t.Skip("images are built by `make e2e`")
	}
	bin, err := filepath.Abs("../../bin")
	must(t, err)
	for _, c := range initProjects {
		t.Run(c.name, func(t *testing.T) {
			e := &e2e{t: t, bin: bin, repo: repo, dir: scratch(t)}
			e.project, e.lock, e.store, e.out = filepath.Join(e.dir, "project"), filepath.Join(e.dir, "caisson.lock"), filepath.Join(e.dir, "store"), filepath.Join(e.dir, "out")
			must(t, txtar.Write(txtar.Parse([]byte(c.files)), e.project))
			manifest := filepath.Join(e.project, "caisson.yaml")
			e.want(t, exitOK, nil, append([]string{"init", "--from", e.project, "-o", manifest}, c.args...)...)
			address, stop := e.serve()
			key, err := os.ReadFile(filepath.Join(repo, "RPM-GPG-KEY-debrepo"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(e.project, "KEY"), key, 0o644))
			b, err := os.ReadFile(manifest)
			must(t, err)
			text := strings.ReplaceAll(strings.NewReplacer(c.decide...).Replace(string(b)), "ADDRESS", address)
			must(t, os.WriteFile(manifest, []byte(text), 0o644))
			e.want(t, exitOK, nil, "lock", "-f", manifest, "-o", e.lock, "--store", e.store)
			e.want(t, exitOK, nil, append(e.at("prefetch"), "--project", e.project)...)
			stop()
			e.want(t, exitOK, nil, append(e.at("build"), "--out", e.out)...)
			var accounts []build.File
			readJSON(t, filepath.Join(e.out, "files.json"), &accounts)
			for path, want := range c.want {
				i := slices.IndexFunc(accounts, func(f build.File) bool { return f.Part == "root" && f.Path == path })
				if i < 0 || accounts[i].Account != want {
					t.Errorf("%s: got %+v, want the account %s", path, accounts[max(i, 0)], want)
				}
			}
		})
	}
}
