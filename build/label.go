package build

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"

	"caisson/build/rootfs"
	"caisson/build/rootfs/selinux"
)

// selinuxConfig is selinux(8)'s.
const selinuxConfig = "etc/selinux/config"

// label gives every file of a root that has an SELinux policy the label that
// the policy has for it: who runs from a read-only root cannot label later.
func (i *installed) label() error {
	policy, err := selinuxPolicy(i.tree)
	if err != nil || policy == "" {
		return err
	}
	dir := path.Join("etc/selinux", policy, "contexts/files")
	if i.tree.Resolve(path.Join(dir, "file_contexts")) == nil {
		return nil // what reads policies is there, the policy is not
	}
	contexts, err := selinux.Read(func(name string) ([]byte, error) {
		p := path.Join(dir, name)
		if i.tree.Resolve(p) == nil {
			return nil, &fs.PathError{Op: "open", Path: "/" + p, Err: fs.ErrNotExist}
		}
		return i.tree.ReadFile(p)
	})
	if err != nil {
		return fmt.Errorf("labels of the root, by the policy %s: %w", policy, err)
	}
	for _, e := range i.tree.Entries() {
		if e.HardLink != "" {
			continue
		}
		context, ok := contexts.Label("/"+e.Path, e.Mode)
		xattrs := maps.Clone(e.Xattrs) // shared with what was seen
		delete(xattrs, selinux.Attribute)
		if ok {
			if xattrs == nil {
				xattrs = map[string][]byte{}
			}
			xattrs[selinux.Attribute] = append([]byte(context), 0)
		}
		e.Xattrs = xattrs
	}
	return nil
}

// selinuxPolicy is the name of a root's policy, SELINUXTYPE; "" where SELinux is
// not there or disabled.
func selinuxPolicy(t *rootfs.Tree) (string, error) {
	if t.Resolve(selinuxConfig) == nil {
		return "", nil
	}
	b, err := t.ReadFile(selinuxConfig)
	if err != nil {
		return "", err
	}
	settings := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if k, v, ok := strings.Cut(strings.TrimSpace(s.Text()), "="); ok {
			settings[k] = v
		}
	}
	policy := settings["SELINUXTYPE"]
	switch {
	case settings["SELINUX"] == "disabled" || policy == "":
		return "", nil
	case strings.ContainsAny(policy, "/\x00") || strings.HasPrefix(policy, "."):
		return "", fmt.Errorf("/%s: %q is not the name of a policy", selinuxConfig, policy)
	}
	return policy, nil
}
