// Package verify says whether an image is what its lock makes.
//
// A verdict rests on: the image rebuilt from lock and store under other
// conditions, and the whole disk compared bit for bit; the root hash derived
// again from the data; the measurements predicted again from the bytes, of
// image and rebuild; the evidence of both builds. Of an archive, which no machine
// boots, every digest in it is derived again instead of root hash and
// measurements. Booting is added where it is asked for. Whatever of this could not be checked makes the verdict "not
// verified", and never a success.
//
// Where it is asked for, the verdict rests on more: on what others signed who
// rebuilt the image (see Rebuilders), instead of a rebuild or beside it, and on
// a policy, whose rules are checks like the others. A check that a policy or
// somebody trusted refuses makes the verdict "not verified" too: who reads
// nothing but the verdict is not to take the image for a good one.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/verify/boot"
	"caisson/verify/diff"
	"caisson/verify/measure"
	"caisson/verify/vary"
)

// Options say what to verify.
type Options struct {
	Image string // a file: NAME.qcow2, NAME.vhd or NAME.raw
	Lock  *lock.Lock
	Store *cas.Store
	// Arch and Variant are what the image is said to be.
	Arch, Variant string
	// Out is where report.json and report.html are written.
	Out string
	// Boot boots the image as well; nil where it is not asked for.
	Boot *boot.Options
	// Rebuild runs the program that builds, under the conditions, with its
	// output folder at out. It is nil where Rebuilders are to stand for it.
	Rebuild func(ctx context.Context, c *vary.Conditions, out string) error
	// Steps runs some of the lock's steps alone, under the conditions, and says what
	// they left: see build.Steps. It is nil where Rebuild is.
	Steps func(ctx context.Context, c *vary.Conditions, only []int) ([]build.File, error)
	// Conditions choose what is varied.
	Conditions vary.Settings
	// Bisect finds what of it is to blame where the rebuild is another image.
	Bisect bool
	// Rebuilders are others whose signed verdicts count; nil where nobody's does.
	Rebuilders *Rebuilders
	// Allowed are the exceptions with a Function that may be made: those that are
	// signed, and within their time.
	Allowed []Exception
	// Judge holds what was found against a policy, Policy; nil without one.
	Judge  func(Findings) Judgement
	Policy *PolicyFile
	// Version is the verifying program's.
	Version string
	// Now is the clock, for Report.Started and Finished.
	Now      func() time.Time
	Progress func(stage string)
}

// verification is one run of Verify.
type verification struct {
	Options
	report     *Report
	disk       *Disk
	measured   *measure.Result
	phases     []string
	rebuildDir string
	// differs says that the rebuild is another image, or that there is none: what
	// Bisect is to explain. all is that rebuild.
	differs bool
	all     *outcome
	// claimed is the builder's evidence, seen that of the rebuild; nil where it
	// is not there or cannot be read.
	claimed, seen *build.Evidence
}

// Findings is what a policy is about.
type Findings struct {
	Report *Report
	// Claimed is the builder's evidence, Seen that of the rebuild; nil where there
	// is none.
	Claimed, Seen *build.Evidence
}

// Judgement is what a policy says: a check each rule, and the exceptions that
// were needed.
type Judgement struct {
	Checks     []Check
	Exceptions []Exception
}

// Verify checks an image and writes the report. An error means that no
// verdict was reached: the image cannot be read, an input is missing, or it
// was interrupted.
func Verify(ctx context.Context, o Options) (*Report, error) {
	if o.Rebuild == nil && (o.Rebuilders == nil || o.Rebuilders.Want < 1) {
		return nil, errors.New("verifying an image: neither a rebuild nor others who made one are asked for")
	}
	v := &verification{Options: o, report: &Report{
		Version: 1, Name: o.Lock.Name, Variant: o.Variant, Caisson: o.Version, Started: o.Now().UTC().Format(time.RFC3339), Policy: o.Policy,
	}}
	var err error
	if v.report.Lock, err = o.Lock.Digest(); err != nil {
		return nil, err
	}
	if v.disk, err = OpenImage(o.Image); err != nil {
		return nil, err
	}
	defer v.disk.Close()
	if err := v.readAndRebuild(ctx); err != nil {
		return nil, err
	}
	if err := v.bisect(ctx); err != nil {
		return nil, err
	}
	if err := v.boot(ctx); err != nil {
		return nil, err
	}
	v.askRebuilders()
	v.judge()
	v.decide()
	v.report.Finished = o.Now().UTC().Format(time.RFC3339)
	return v.report, v.write()
}

func (v *verification) say(stage string) {
	if v.Progress != nil {
		v.Progress(stage)
	}
}

func (v *verification) check(name string, s Status, format string, args ...any) {
	v.report.Checks = append(v.report.Checks, Check{Name: name, Status: s, Detail: fmt.Sprintf(format, args...)})
}

// ImageError says that the image cannot be read to its end.
type ImageError struct{ Err error }

func (e *ImageError) Error() string { return e.Err.Error() }
func (e *ImageError) Unwrap() error { return e.Err }

// readAndRebuild looks at the image while it is made again: neither needs the
// other, and a build does not keep all CPUs busy all the time.
func (v *verification) readAndRebuild(ctx context.Context) error {
	var made <-chan error
	var c *vary.Conditions
	if v.Rebuild != nil {
		var err error
		if c, err = v.vary(v.Conditions); err != nil {
			return err
		}
		defer os.RemoveAll(c.Dir)
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		made = v.start(ctx, c)
		// It is over before its folder is removed.
		defer func() {
			stop()
			for range made { // until it is closed
			}
		}()
	}
	v.say("reading the image")
	var err error
	if v.report.Image, err = v.artifact(v.Image, v.disk, nil); err != nil {
		return &ImageError{err}
	}
	if v.disk.IsArchive() {
		v.readContents()
	} else {
		v.measure()
	}
	v.claimed = v.checkEvidence("evidence", filepath.Dir(v.Image))
	v.claimedUsual()
	if v.Rebuild == nil {
		v.check("rebuild", NotAsked, "the image was not made again here: the signed verdicts of others stand for it")
		v.check(v.compared(), NotAsked, "there is nothing to compare with")
		return nil
	}
	return v.rebuilt(ctx, <-made)
}

// vary chooses conditions and notes them in the report.
func (v *verification) vary(s vary.Settings) (*vary.Conditions, error) {
	c, err := vary.New(s)
	if err != nil {
		return nil, err
	}
	for _, said := range c.Said {
		v.report.Conditions = append(v.report.Conditions, Condition(said))
	}
	return c, nil
}

// start makes the image again. What comes back is told once, then closed.
func (v *verification) start(ctx context.Context, c *vary.Conditions) <-chan error {
	made := make(chan error, 1)
	v.rebuildDir = filepath.Join(c.Dir, "out")
	v.say("rebuilding under other conditions")
	go func() {
		defer close(made)
		made <- v.Rebuild(ctx, c, v.rebuildDir)
	}()
	return made
}

// artifact is an image by its bytes and those of its disk, which are those of
// like where the file is the same.
func (v *verification) artifact(name string, d *Disk, like *Artifact) (Artifact, error) {
	a := Artifact{Name: filepath.Base(name)}
	g := new(errgroup.Group)
	inside := d.Format != lock.OutputRaw && !d.IsArchive() // the file is not the disk itself
	if like == nil && inside {
		g.Go(func() (err error) { a.Disk, err = d.Digest(); return err })
	}
	f, err := os.Open(name)
	if err != nil {
		return a, errors.Join(err, g.Wait())
	}
	defer f.Close()
	var readErr error
	a.SHA256, a.Size, readErr = digest.Reader(f)
	err = errors.Join(readErr, g.Wait())
	switch {
	case err != nil || d.IsArchive():
	case !inside:
		a.Disk = a.SHA256
	case like != nil && like.SHA256 == a.SHA256:
		a.Disk = like.Disk
	case like != nil:
		a.Disk, err = d.Digest()
	}
	if err != nil {
		return a, fmt.Errorf("%s: reading the disk in it: %w", name, err)
	}
	return a, nil
}

// measure predicts what the image will measure and compares it with what its
// builder says, where that is at hand.
func (v *verification) measure() {
	v.say("predicting the measurements")
	var err error
	if v.measured, v.phases, err = Measure(v.Image); err != nil {
		v.check("root hash", Failed, "%v", err)
		v.check("measurements", Failed, "nothing can be predicted of an image that contradicts itself")
		return
	}
	m := v.measured
	v.report.RootHash, v.report.PCRs = m.RootHash, m.PCRs[measure.Bank]
	v.check("root hash", Passed, "%s, derived from the data and the one in the kernel's command line", m.RootHash)
	want, err := m.MeasurementsJSON(v.phases)
	if err != nil {
		v.check("measurements", Failed, "%v", err)
		return
	}
	got, err := os.ReadFile(filepath.Join(filepath.Dir(v.Image), measurementsFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		v.check("measurements", Passed, "predicted; there is no %s beside the image to compare with", measurementsFile)
	case err != nil:
		v.check("measurements", NotChecked, "%v", err)
	case string(got) != string(want):
		v.check("measurements", Failed, "%s says otherwise than the image's bytes", measurementsFile)
	default:
		v.check("measurements", Passed, "predicted from the bytes, equal to %s", measurementsFile)
	}
}

// rebuilt compares the image with the one that was made again, or says why there
// is none.
func (v *verification) rebuilt(ctx context.Context, err error) error {
	if err != nil {
		if final(ctx, err) {
			return err
		}
		v.differs, v.all = true, failed(err)
		v.check("rebuild", NotChecked, "%v", err)
		v.check(v.compared(), NotChecked, "there is nothing to compare with")
		return nil
	}
	name := v.rebuiltName(v.rebuildDir)
	again, err := OpenImage(name)
	if err != nil {
		v.check("rebuild", NotChecked, "the rebuild left no %s image: %v", v.disk.Format, err)
		v.check(v.compared(), NotChecked, "there is nothing to compare with")
		return nil
	}
	defer again.Close()
	v.say("comparing the images")
	a, err := v.artifact(name, again, &v.report.Image)
	if err != nil {
		return err
	}
	if a.Manifest, err = again.Manifest(); err != nil {
		return err
	}
	v.report.Rebuilt = &a
	v.check("rebuild", Passed, "made again from lock and store")
	v.seen = v.checkEvidence("evidence of the rebuild", v.rebuildDir)
	if last := &v.report.Checks[len(v.report.Checks)-1]; last.Status == NotAsked {
		last.Status, last.Detail = NotChecked, "the rebuild left no "+evidenceFile
	}
	if v.seen != nil && len(v.seen.Reused) > 0 {
		v.check("rebuild", Failed, "%s did not run again", strings.Join(v.seen.Reused, ", "))
	}
	if err := v.compare(ctx, again); err != nil {
		return err
	}
	if v.differs && v.Bisect {
		if v.all, err = v.outcome(v.rebuildDir); err != nil {
			return err
		}
	}
	v.compareEvidence()
	return v.compareOutputs()
}

// final tells whether an error of a rebuild ends the verification: it was
// interrupted, or its inputs are not there.
func final(ctx context.Context, err error) bool {
	var missing *cas.MissingError
	var damaged *cas.DamagedError
	return ctx.Err() != nil || errors.As(err, &missing) || errors.As(err, &damaged)
}

// compare compares image and rebuild, and finds what differs.
func (v *verification) compare(ctx context.Context, again *Disk) error {
	a, b := v.report.Image, *v.report.Rebuilt
	switch {
	case a.SHA256 == b.SHA256:
		v.check(v.compared(), Passed, "every bit of %d bytes is the same", v.disk.Size)
		return nil
	case v.disk.IsArchive():
		v.differs = true
		v.check(v.compared(), Failed, "the archives differ")
		return v.explain(ctx, again)
	case a.Disk == b.Disk:
		v.check("disk", Failed, "the disk is the same, the %s file around it is not", v.disk.Format)
		text := fmt.Sprintf("-%s %d bytes\n+%s %d bytes\n", a.SHA256, a.Size, b.SHA256, b.Size)
		v.report.Differences = []*diff.Node{{
			Source1: a.Name, Source2: b.Name, UnifiedDiff: &text,
			Comments: []string{"the container's own structures differ; no measurement changes"},
		}}
		return nil
	}
	v.differs = true
	used, why := v.equivalent(ctx, again)
	switch {
	case why == nil:
		v.differs = false
		v.report.Exceptions = append(v.report.Exceptions, used...)
		v.check("disk", Passed, "every bit is the same after %s was applied to %s on both sides", used[0].Function, matched(used))
	case len(v.Allowed) > 0:
		v.check("disk", Failed, "the disks differ, and the exceptions do not cover it: %v", why)
	default:
		v.check("disk", Failed, "the disks differ")
	}
	return v.explain(ctx, again)
}

// explain finds what differs between image and rebuild.
func (v *verification) explain(ctx context.Context, again *Disk) error {
	nodes, err := diff.Disks(ctx, v.source(v.disk, filepath.Dir(v.Image), "image"), v.source(again, v.rebuildDir, "rebuild"), diff.Options{})
	if err != nil {
		return err
	}
	v.report.Differences = nodes
	if v.measured == nil {
		return nil
	}
	if m, err := measure.Disk(again, again.Size); err == nil {
		v.report.Affected = diff.Affected(v.measured, m)
	}
	return nil
}

// source is a disk with the account of its files, where its folder has one.
func (v *verification) source(d *Disk, dir, name string) diff.Source {
	owners := map[string]string{}
	var files []build.File
	if err := readJSON(filepath.Join(dir, filesFile), &files); err == nil {
		for _, f := range files {
			by := f.By
			if len(f.Inputs) == 1 {
				by = f.Inputs[0]
			}
			owners[f.Part+":"+f.Path] = by
		}
	}
	return diff.Source{Name: name, Disk: d, Size: d.Size, Owner: func(part, path string) string { return owners[part+":"+path] }}
}

// functions are the exceptions by which the comparison was made.
func (r *Report) functions() []Exception {
	return slices.DeleteFunc(slices.Clone(r.Exceptions), func(e Exception) bool { return e.Function == "" })
}

// matched is what exceptions were applied to.
func matched(list []Exception) string {
	var names []string
	for _, e := range list {
		names = append(names, e.Match)
	}
	return strings.Join(names, ", ")
}

// judge holds what was found against the policy.
func (v *verification) judge() {
	if v.Judge == nil {
		v.check("policy", NotAsked, "there is no policy; --policy names one")
		return
	}
	j := v.Judge(Findings{Report: v.report, Claimed: v.claimed, Seen: v.seen})
	v.report.Checks = append(v.report.Checks, j.Checks...)
	v.report.Exceptions = append(v.report.Exceptions, j.Exceptions...)
}

// decide reads the verdict off the checks: what is wrong with the image comes
// before what refuses it, and that before what could not be checked.
func (v *verification) decide() {
	v.weigh()
	if r := v.report; r.Verdict != Identical && len(r.Blame) > 0 {
		r.Reason += "; " + r.Blame[0].Text
	}
}

func (v *verification) weigh() {
	r := v.report
	r.Verdict, r.Reason = Identical, "the rebuild is the same to the bit, and everything asked for was checked"
	if v.Rebuild == nil {
		r.Reason = "others who are trusted rebuilt it, the same to the bit; it was not rebuilt here"
	}
	if used := r.functions(); len(used) > 0 {
		r.Verdict, r.Reason = Equivalent, fmt.Sprintf("the rebuild is the same but for %s of %s, which is excepted", used[0].Function, matched(used))
	}
	for _, c := range r.Checks {
		switch {
		case c.Status == Failed:
			r.Verdict, r.Reason = Different, c.Name+": "+c.Detail
			return
		case c.Status == Refused && !strings.HasPrefix(r.Reason, refusedBy):
			r.Verdict, r.Reason = NotVerified, refusedBy+c.Name+": "+c.Detail
		case c.Status == Passed, c.Status == NotAsked, c.Status == Refused:
		case r.Verdict != NotVerified:
			r.Verdict, r.Reason = NotVerified, c.Name+" could not be checked: "+c.Detail
		}
	}
	if r.Verdict == NotVerified {
		return
	}
	for _, name := range v.restsOn() {
		if !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == name && c.Status == Passed }) {
			r.Verdict, r.Reason = NotVerified, name+" was not checked, and the verdict has to rest on it"
			return
		}
	}
}

// restsOn are the checks that have to have passed for a verdict to be good,
// whatever else was checked.
func (v *verification) restsOn() []string {
	names := []string{"root hash", "measurements"}
	if v.disk.IsArchive() {
		names = []string{checkContents}
	}
	if v.Rebuild != nil {
		names = append(names, "rebuild", v.compared(), "evidence of the rebuild")
	}
	if v.Boot != nil {
		names = append(names, "boot")
	}
	if v.Rebuilders != nil || v.Rebuild == nil {
		names = append(names, "rebuilders")
	}
	return names
}

// refusedBy begins the reason of a verdict that a policy refuses.
const refusedBy = "refused by "

// write leaves report.json and report.html.
func (v *verification) write() error {
	if err := os.MkdirAll(v.Out, 0o755); err != nil {
		return err
	}
	page := filepath.Join(v.Out, reportPage)
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(WritePage(pw, v.report)) }()
	b, err := io.ReadAll(pr)
	if err != nil {
		return fmt.Errorf("writing %s: %w", page, err)
	}
	if err := writeFile(page, b); err != nil {
		return err
	}
	if b, err = v.report.Encode(); err != nil {
		return err
	}
	return writeFile(filepath.Join(v.Out, reportFile), b)
}
