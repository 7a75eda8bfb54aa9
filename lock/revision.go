package lock

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Change is one difference between the bytes that Caissons of two revisions make
// of a lock.
type Change struct {
	// Revision is the first that has it.
	Revision int `json:"revision"`
	// What differs, in a sentence.
	What string `json:"what"`
	// Concerns tells whether it makes another image of the lock, and Why that is
	// known.
	Concerns Concern `json:"concerns"`
	Why      string  `json:"why"`
}

// Concern tells whether something is another lock's affair.
type Concern string

// What can be told of a change from a lock alone.
const (
	Concerned    Concern = "yes"
	NotConcerned Concern = "no"
	MayConcern   Concern = "maybe" // what the packages hold decides it
)

// change is a line of the table of revisions.
type change struct {
	revision int
	what     string
	concerns func(l *Lock) (Concern, string)
}

// changes is what each revision of the format has changed, from the second on, in
// order.
func changes() []change {
	return []change{
		{2, "the UKI has the kernel's revocation levels (.sbat) beside the stub's, and no NX_COMPAT mark where the kernel has none; " +
			"behind each EFI program on the ESP is room for signatures", everyImage},
		{2, "/usr/share/bug and /usr/share/lintian stay in the initrd, where its packages have them", withInitrd},
		{2, "files of a root with an SELinux policy have the labels that the policy gives them", labelled},
		{3, "the initrd has the kernel modules, too, that its own say they want beside them (soft dependencies)", withModules},
		{3, "a file that a package leaves to its scriptlets to make (%ghost) has the owner that they give it", withScriptlets},
		{3, "the ESP has an empty, read-only loader/random-seed, so that systemd's stub adds no secret of the machine's own to what is measured", withNewStub},
		{3, "scratch space is dm-crypt without a header, by a key of each boot that the kernel alone has; it was LUKS2 with a key in /run", withScratchKey},
	}
}

// Changes are the differences that a lock meets when it is upgraded to Revision,
// in order; none for one that is of Revision, or of a later one.
func (l *Lock) Changes() []Change {
	var out []Change
	for _, c := range changes() {
		if c.revision > l.Revision {
			concerns, why := c.concerns(l)
			out = append(out, Change{c.revision, c.what, concerns, why})
		}
	}
	return out
}

// RevisionError says that a lock is of a later revision than this Caisson's.
type RevisionError struct {
	Revision int   // the lock's
	Err      error // what was not understood of it; nil where all was
}

func (e *RevisionError) Error() string {
	s := fmt.Sprintf("the lock is of revision %d, and this Caisson knows them up to %d", e.Revision, Revision)
	if e.Err != nil {
		s += fmt.Sprintf(" (%v)", e.Err)
	}
	return s
}

// Unwrap returns what was not understood.
func (e *RevisionError) Unwrap() error { return e.Err }

// Upgraded is the lock for a Caisson of Revision: all that it chose is kept. One of
// a later revision, whose changes are not known here, is a *RevisionError.
func (l *Lock) Upgraded() (*Lock, error) {
	if l.Revision > Revision {
		return nil, &RevisionError{Revision: l.Revision}
	}
	out := *l
	out.Revision = Revision
	return &out, nil
}

func everyImage(*Lock) (Concern, string) { return Concerned, "every image has a UKI" }

// withInitrd knows that at that time each image had an initrd of its own.
func withInitrd(*Lock) (Concern, string) {
	return MayConcern, "the packages of the initrd decide; those of Debian have them"
}

func labelled(l *Lock) (Concern, string) {
	if p := l.packageOf(SetRoot, func(r *RPM) bool { return strings.HasPrefix(r.Name, "selinux-policy") }); p != "" {
		return Concerned, "the root has " + p
	}
	return MayConcern, "no package of the root is called selinux-policy; one that is called otherwise, a step or an overlay may bring a policy"
}

func withModules(l *Lock) (Concern, string) {
	for _, s := range l.Sets {
		if base, _, _ := strings.Cut(s.Name, "+"); base == SetInitrd && len(s.Modules) > 0 {
			return MayConcern, "set " + s.Name + " names modules; the kernel says what they want"
		}
	}
	return NotConcerned, "no initrd names a module"
}

func withScriptlets(l *Lock) (Concern, string) {
	for _, s := range l.Sets {
		if base, _, _ := strings.Cut(s.Name, "+"); base != SetTools && s.Scriptlets != ScriptletsSkip {
			return MayConcern, "set " + s.Name + " runs its packages' scriptlets"
		}
	}
	return NotConcerned, "no set runs scriptlets"
}

// firstSeedless is the first systemd whose stub keeps a secret of the machine's
// own unless the seed on the ESP is read-only.
const firstSeedless = 262

func withNewStub(l *Lock) (Concern, string) {
	stub := func(r *RPM) bool { return strings.HasPrefix(r.Name, "systemd-boot") || r.Name == "systemd-ukify" }
	isNew := func(r *RPM) bool {
		major, _, _ := strings.Cut(strings.ReplaceAll(r.Version, "~", "."), ".")
		n, err := strconv.Atoi(major)
		return err == nil && n >= firstSeedless
	}
	if p := l.packageOf(SetTools, func(r *RPM) bool { return stub(r) && isNew(r) }); p != "" {
		return Concerned, fmt.Sprintf("the tools have %s; stubs since %d get the file", p, firstSeedless)
	}
	if p := l.packageOf(SetTools, stub); p != "" {
		return NotConcerned, fmt.Sprintf("the tools have %s; stubs since %d get the file", p, firstSeedless)
	}
	return MayConcern, fmt.Sprintf("stubs since %d get the file, and it is not known which package brings the stub", firstSeedless)
}

func withScratchKey(l *Lock) (Concern, string) {
	encrypted := func(i *Image) bool { return i.Scratch != nil && i.Scratch.Encrypt == EncryptKey }
	if encrypted(&l.Image) {
		return Concerned, "the image has encrypted scratch space"
	}
	for _, v := range l.Variants {
		if encrypted(&v.Image) {
			return Concerned, "variant " + v.Name + " has encrypted scratch space"
		}
	}
	return NotConcerned, "it has no encrypted scratch space"
}

// packageOf is the name of a set's first package, variants' sets included, that
// is so; empty where none is.
func (l *Lock) packageOf(set string, is func(*RPM) bool) string {
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.RPM == nil || !is(in.RPM) {
			continue
		}
		if slices.ContainsFunc(in.For, func(u Use) bool {
			base, _, _ := strings.Cut(u.Set, "+")
			return base == set
		}) {
			return in.Name
		}
	}
	return ""
}
