// Package use tells what an input of a lock is for in one of its images.
package use

import (
	"slices"
	"strings"

	"caisson/lock"
)

// Use is a set of purposes. The empty set says that the input serves other
// images of the lock: another machine's or another variant's.
type Use uint8

// The purposes.
const (
	Image    Use = 1 << iota // a package whose files are in the root or the initrd
	Tool                     // run by the build, and in no image: the tools set, a toolchain
	Source                   // what compiled and placed files are made of
	Metadata                 // what the choice of the others rests on: repository metadata, keys
)

// Names are the purposes in words, in a fixed order.
func (u Use) Names() []string {
	var names []string
	for _, p := range []struct {
		use  Use
		name string
	}{{Image, "image"}, {Tool, "tool"}, {Source, "source"}, {Metadata, "metadata"}} {
		if u&p.use != 0 {
			names = append(names, p.name)
		}
	}
	return names
}

// Of tells what an input is for in the image of that machine and variant.
// An input that says of no machine or set that it is for it, serves all.
func Of(l *lock.Lock, in *lock.Input, arch, variant string) Use {
	if in.Kind == lock.KindTree && foreignOverlay(l, in.Name, variant) {
		return 0
	}
	if len(in.For) == 0 {
		return byKind(in.Kind)
	}
	var u Use
	for _, f := range in.For {
		if f.Arch == "" || f.Arch == arch {
			u |= bySet(l, in.Kind, f.Set, variant)
		}
	}
	if u != 0 && in.OCI != nil && (in.OCI.Role == lock.RoleIndex || in.OCI.Role == lock.RoleSBOM) {
		return Metadata // no build reads them
	}
	return u
}

// bySet is what a set brings an input for.
func bySet(l *lock.Lock, kind, set, variant string) Use {
	if byKind(kind) != Image {
		return byKind(kind)
	}
	switch set {
	case l.SetFor(lock.SetRoot, variant), l.SetFor(lock.SetInitrd, variant):
		return Image
	case l.SetFor(lock.SetTools, variant), l.SetFor(lock.SetVM, variant):
		return Tool
	}
	return 0
}

// byKind is what inputs of a kind are for, whatever names them.
func byKind(kind string) Use {
	switch kind {
	case lock.KindRPM:
		return Image
	case lock.KindRepodata, lock.KindKey:
		return Metadata
	case lock.KindToolchain:
		return Tool
	}
	return Source
}

// foreignOverlay tells whether a tree is laid over other images only.
func foreignOverlay(l *lock.Lock, name, variant string) bool {
	own, _ := l.ImageFor(variant)
	if slices.Contains(own.Overlay, name) {
		return false
	}
	if slices.ContainsFunc(l.Payloads, func(p lock.Payload) bool { return p.Source == name }) {
		return false
	}
	return slices.Contains(l.Image.Overlay, name) ||
		slices.ContainsFunc(l.Variants, func(v lock.Variant) bool { return slices.Contains(v.Image.Overlay, name) })
}

// Reason tells whether one reason for an input holds for that image.
func Reason(l *lock.Lock, in *lock.Input, f lock.Use, arch, variant string) bool {
	if f.Arch != "" && f.Arch != arch {
		return false
	}
	if in.Kind != lock.KindRPM {
		return true
	}
	base, _, _ := strings.Cut(f.Set, "+")
	return f.Set == l.SetFor(base, variant)
}
