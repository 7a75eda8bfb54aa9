package main

import (
	"fmt"
	"strings"

	"caisson/verify"
)

// inspectArchive shows what the bytes of an archive say.
func inspectArchive(ui *ui, name string, im *verify.Disk) error {
	n, err := im.CheckContents()
	if err != nil {
		return &codeError{fmt.Errorf("%s contradicts itself: %w", name, err), exitDifferent, "it is damaged, or was altered: get it again, or build it"}
	}
	ui.print("image       %s (%s)", name, size(im.Size))
	showContainer(ui, im)
	ui.print("  files     %d, with folders", n)
	return nil
}

// showContainer prints what a container image is, and how it is started.
func showContainer(ui *ui, im *verify.Disk) {
	if im.OCI == nil {
		ui.print("  archive   a root in a tar archive, which no machine boots")
		return
	}
	ui.print("  archive   a container image for %s/%s, of %s", im.OCI.Config.OS, im.OCI.Config.Architecture, im.OCI.Config.Created)
	ui.print("  manifest  %s", im.OCI.Digest)
	c := im.OCI.Config.Config
	if starts := append(append([]string{}, c.Entrypoint...), c.Cmd...); len(starts) > 0 {
		ui.print("  starts    %s", quote(starts))
	}
	for _, l := range []struct{ what, value string }{{"as       ", c.User}, {"in       ", c.WorkingDir}, {"with     ", strings.Join(c.Env, " ")}} {
		if l.value != "" {
			ui.print("  %s %s", l.what, l.value)
		}
	}
}
