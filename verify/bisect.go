package verify

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"caisson/build"
	"caisson/lock/digest"
	"caisson/verify/vary"
)

// Blame says what a difference between image and rebuild comes from.
type Blame struct {
	// Part is what made the files: a step of the lock, or a part of the build.
	Part string `json:"part,omitempty"`
	// Variations are to blame, by vary.Names: one, or several that are only
	// together. There are none where it is something else.
	Variations []string `json:"variations,omitempty"`
	// Random is set for what differs between two runs in which nothing was varied.
	Random bool `json:"random,omitempty"`
	// Fails is why the rebuild fails, where it is not the files that differ.
	Fails string `json:"fails,omitempty"`
	// Files are those that differ, "PART:PATH".
	Files []string `json:"files,omitempty"`
	// Text says it in a sentence.
	Text string `json:"text"`
}

// inWords are the variations as one speaks of them.
func inWords(name string) string {
	words, ok := map[string]string{
		vary.Environment: "the environment", vary.BuildPath: "the folder it is built in", vary.Kernel: "the kernel's version",
		vary.ASLR: "where programs lie in memory", vary.CPUs: "the number of CPUs", vary.UserGroup: "the user", vary.FileOrdering: "the order of files in folders",
		vary.DomainHost: "the host name", vary.Home: "the home folder", vary.Locales: "the locale", vary.ExecPath: "the search path",
		vary.Timezone: "the time zone", vary.Umask: "the umask",
	}[name]
	if !ok {
		return name
	}
	return words
}

// outcome is what came of a rebuild, or of some steps of one.
type outcome struct {
	failure string // why there is none
	image   digest.Digest
	files   map[string]made // by "PART:PATH"
}

// made is a file as far as it can differ, and what made it.
type made struct{ print, by string }

// theBuild stands for a build as a whole among the files that differ: it fails, or
// the disk differs where no file does.
const theBuild = ""

func newOutcome(image digest.Digest, files []build.File) *outcome {
	o := &outcome{image: image, files: map[string]made{}}
	for _, f := range files {
		content := ""
		if f.SHA256 != nil {
			content = f.SHA256.String()
		}
		by := f.By
		if by == "" {
			by = strings.Join(f.Inputs, ", ")
		}
		o.files[f.Part+":"+f.Path] = made{fmt.Sprintf("%o %d %s %s", f.Mode, f.Size, content, f.Target), by}
	}
	return o
}

// differing are those of paths in which o differs from base: all, where there is
// no o. With no paths every file is compared.
func (o *outcome) differing(base *outcome, paths []string) []string {
	if paths == nil {
		paths = slices.Sorted(maps.Keys(maps.Collect(func(yield func(string, bool) bool) {
			for _, files := range []map[string]made{base.files, o.files} {
				for p := range files {
					if !yield(p, true) {
						return
					}
				}
			}
		})))
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		switch {
		case o.failure != "":
			return false
		case p == theBuild: // steps alone make no image
			return o.image.IsZero() || o.image == base.image
		}
		return o.files[p].print == base.files[p].print
	})
}

// trial rebuilds something with these variations.
type trial func(ctx context.Context, vary []string) (*outcome, error)

// bisection looks for what is to blame.
type bisection struct {
	v    *verification
	base *outcome // with nothing varied
	run  trial
	// found are the blames.
	found []Blame
}

// bisect finds, where the rebuild is another image, what of that which was varied is to
// blame: it rebuilds with nothing varied, then with one half of the variations and the
// other, and so on. Of a build in which only steps differ that can be run alone, only
// these are run again.
func (v *verification) bisect(ctx context.Context) error {
	var varied []string
	for _, c := range v.report.Conditions {
		if c.Varied {
			varied = append(varied, c.Name)
		}
	}
	if !v.Bisect || !v.differs || v.Rebuild == nil || len(varied) == 0 {
		return nil
	}
	none, err := v.whole(ctx, nil)
	if err != nil {
		return err
	}
	b := &bisection{v: v, base: none}
	defer func() { v.report.Blame = b.found }()
	switch {
	case none.failure != "":
		b.add(Blame{Fails: none.failure, Text: "nothing that was varied is to blame: the rebuild fails with none of it varied as well"})
		return nil
	case v.all.failure == "" && v.all.image == none.image:
		b.add(Blame{Text: "nothing that was varied is to blame: with none of it varied the rebuild is the same other image; this one was not made from these inputs by this Caisson, was changed since, or depends on what cannot be varied here"})
		return nil
	}
	if err := b.search(ctx, varied); err != nil {
		return err
	}
	if none.image != v.report.Image.SHA256 {
		b.add(Blame{Text: "with nothing varied the rebuild is not this image either"})
	}
	return nil
}

// search goes through all that differs between the rebuild and one with nothing
// varied.
func (b *bisection) search(ctx context.Context, varied []string) error {
	if b.v.all.failure != "" {
		b.run = b.v.whole
		steps := b.v.aloneSteps(nil)
		if len(steps) > 0 { // is it one of these that fails?
			o, err := b.v.alone(steps)(ctx, varied)
			if err != nil {
				return err
			}
			if o.failure != "" {
				b.run = b.v.alone(steps)
			}
		}
		return b.find(ctx, varied, []string{theBuild}, b.v.all.failure)
	}
	var inSteps, others []string
	by := map[string]bool{}
	for _, p := range b.v.all.differing(b.base, nil) {
		if maker := b.maker(p); len(b.v.aloneSteps([]string{maker})) > 0 {
			inSteps, by[maker] = append(inSteps, p), true
		} else if !strings.HasPrefix(p, partESP+":") {
			others = append(others, p)
		}
	}
	if len(inSteps)+len(others) == 0 {
		others = []string{theBuild}
	}
	if len(inSteps) > 0 {
		b.run = b.v.alone(b.v.aloneSteps(slices.Sorted(maps.Keys(by))))
		if err := b.among(ctx, varied, inSteps); err != nil {
			return err
		}
	}
	if len(others) == 0 {
		return nil
	}
	b.run = b.v.whole
	return b.among(ctx, varied, others)
}

// partESP is the part of files.json in which other parts are packed up.
const partESP = "esp"

// among first sets aside what differs from run to run, then bisects.
func (b *bisection) among(ctx context.Context, varied, paths []string) error {
	again, err := b.run(ctx, nil)
	if err != nil {
		return err
	}
	random := again.differing(b.base, paths)
	b.blame(random, nil, again.failure)
	stable := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return slices.Contains(random, p) })
	if len(stable) == 0 {
		return nil
	}
	return b.find(ctx, varied, stable, "")
}

// find blames those of the variations that make paths differ, which they are
// known to do all together; failure is how, where that is a build that fails.
func (b *bisection) find(ctx context.Context, varied, paths []string, failure string) error {
	if len(varied) == 1 {
		b.blame(paths, varied, failure)
		return nil
	}
	seen := map[string]bool{}
	half := len(varied) / 2
	for _, some := range [][]string{varied[:half], varied[half:]} {
		o, err := b.run(ctx, some)
		if err != nil {
			return err
		}
		differ := o.differing(b.base, paths)
		for _, p := range differ {
			seen[p] = true
		}
		if len(differ) > 0 {
			if err := b.find(ctx, some, differ, o.failure); err != nil {
				return err
			}
		}
	}
	left := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return seen[p] })
	b.blame(left, varied, failure)
	return nil
}

// failed is the outcome of a rebuild that there is none of.
func failed(err error) *outcome {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return &outcome{failure: line}
}

// maker is what made a file.
func (b *bisection) maker(p string) string {
	if m, ok := b.base.files[p]; ok {
		return m.by
	}
	return b.v.all.files[p].by
}

// blame notes that paths differ by some variations, or with none from run to run.
func (b *bisection) blame(paths, varied []string, failure string) {
	byPart := map[string][]string{}
	for _, p := range paths {
		part := b.v.stepName(b.maker(p))
		byPart[part] = append(byPart[part], p)
	}
	for _, part := range slices.Sorted(maps.Keys(byPart)) {
		bl := Blame{Part: part, Variations: varied, Random: len(varied) == 0, Fails: failure, Files: byPart[part]}
		if bl.Files[0] == theBuild {
			bl.Files = nil
		}
		bl.Text = bl.sentence()
		b.add(bl)
	}
}

func (b *bisection) add(bl Blame) { b.found = append(b.found, bl) }

// maxBlamed is how many files a sentence names.
const maxBlamed = 5

func (bl *Blame) sentence() string {
	var words []string
	for _, name := range bl.Variations {
		words = append(words, inWords(name))
	}
	what := bl.Part
	if what == "" {
		what = "the image"
	}
	s := ""
	switch {
	case bl.Fails != "" && len(words) == 0:
		return "the rebuild fails now and then, with nothing varied: " + bl.Fails
	case bl.Fails != "":
		return fmt.Sprintf("the rebuild fails where %s is another: %s", strings.Join(words, " together with "), bl.Fails)
	case len(words) == 0:
		s = what + " is different from run to run, with nothing varied: it depends on the clock, on random or process numbers, or on what runs first"
	case len(words) == 1:
		s = what + " depends on " + words[0]
	default:
		s = what + " depends on several of these together, on none alone: " + strings.Join(words, ", ")
	}
	switch n := len(bl.Files); {
	case n > maxBlamed:
		s += fmt.Sprintf(": %s and %d more", strings.Join(bl.Files[:maxBlamed], ", "), n-maxBlamed)
	case n > 0:
		s += ": " + strings.Join(bl.Files, ", ")
	}
	return s
}

// byStepNumber is how files.json names a step of the lock.
var byStepNumber = regexp.MustCompile(`^step (\d+)$`)

// aloneSteps are the steps of these names, or all of the lock's where nil, that can be run
// alone, by number.
func (v *verification) aloneSteps(names []string) []int {
	if names == nil {
		for n := range v.Lock.Steps {
			names = append(names, fmt.Sprintf("step %d", n+1))
		}
	}
	var out []int
	for _, name := range names {
		m := byStepNumber.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		if n, err := strconv.Atoi(m[1]); err == nil && build.Alone(v.Lock, n) {
			out = append(out, n)
		}
	}
	return out
}

// stepName is what made something, for people.
func (v *verification) stepName(by string) string {
	m := byStepNumber.FindStringSubmatch(by)
	if m == nil {
		return by
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n < 1 || n > len(v.Lock.Steps) {
		return by
	}
	return build.StepName(n, v.Lock.Steps[n-1])
}

// whole is a trial of the whole build.
func (v *verification) whole(ctx context.Context, varied []string) (*outcome, error) {
	return v.try(ctx, varied, "", func(c *vary.Conditions) (*outcome, error) {
		out := filepath.Join(c.Dir, "out")
		if err := v.Rebuild(ctx, c, out); err != nil {
			return nil, err
		}
		return v.outcome(out)
	})
}

// alone is a trial of some steps.
func (v *verification) alone(only []int) trial {
	return func(ctx context.Context, varied []string) (*outcome, error) {
		var names []string
		for _, n := range only {
			names = append(names, strconv.Itoa(n))
		}
		return v.try(ctx, varied, " step "+strings.Join(names, ", "), func(c *vary.Conditions) (*outcome, error) {
			files, err := v.Steps(ctx, c, only)
			return newOutcome(digest.Digest{}, files), err
		})
	}
}

// try runs something under some of the conditions of the rebuild.
func (v *verification) try(ctx context.Context, varied []string, what string, run func(*vary.Conditions) (*outcome, error)) (*outcome, error) {
	s := v.Conditions
	s.Vary = varied
	c, err := vary.New(s)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(c.Dir)
	which := "nothing"
	if len(varied) > 0 {
		which = strings.Join(varied, ", ")
	}
	v.say("looking for what is to blame: rebuilding" + what + " with " + which + " varied")
	o, err := run(c)
	if err != nil && !final(ctx, err) {
		return failed(err), nil
	}
	return o, err
}

// outcome reads what a rebuild left in a folder.
func (v *verification) outcome(dir string) (*outcome, error) {
	sum, err := hashFile(v.rebuiltName(dir))
	if err != nil {
		return nil, err
	}
	var files []build.File
	if err := readJSON(filepath.Join(dir, filesFile), &files); err != nil {
		return nil, err
	}
	return newOutcome(sum, files), nil
}
