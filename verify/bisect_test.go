package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify/vary"
)

// depends are the variations on which a file of a made-up build depends: on each by
// itself, on all together, or on nothing but chance. Then the build fails.
type depends struct {
	by     string // what made it
	each   []string
	all    []string
	random bool
	fails  bool
}

// world rebuilds images that depend on what they are told to depend on.
type world struct {
	files map[string]depends // by path in the root
	runs  int                // whole rebuilds
	steps int                // rebuilds of steps alone
	// drift makes every rebuild another image than the one that is verified.
	drift string
}

func (w *world) make(vary []string) ([]build.File, error) {
	var out []build.File
	for path, d := range w.files {
		content := path + w.drift
		for _, name := range d.each {
			if slices.Contains(vary, name) {
				content += name
			}
		}
		if len(d.all) > 0 && !slices.ContainsFunc(d.all, func(n string) bool { return !slices.Contains(vary, n) }) {
			content += "together"
		}
		if d.random {
			content += fmt.Sprint(w.runs, w.steps)
		}
		if d.fails && content != path {
			return nil, errors.New("the build under other conditions failed: " + d.by + ": exit code 1\nlong story")
		}
		sum := digest.Of([]byte(content))
		out = append(out, build.File{Part: lock.SetRoot, Path: path, SHA256: &sum, By: d.by})
	}
	slices.SortFunc(out, func(a, b build.File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func (w *world) rebuild(_ context.Context, c *vary.Conditions, out string) error {
	w.runs++
	files, err := w.make(c.Varied())
	if err != nil {
		return err
	}
	b, err := json.Marshal(append(files, build.File{Part: "esp", Path: "/uki", By: "assembly"}))
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(out, 0o755), os.WriteFile(filepath.Join(out, filesFile), b, 0o644), os.WriteFile(filepath.Join(out, "x.raw"), b, 0o644))
}

func (w *world) alone(_ context.Context, c *vary.Conditions, only []int) ([]build.File, error) {
	w.steps++
	files, err := w.make(c.Varied())
	return slices.DeleteFunc(files, func(f build.File) bool {
		return !slices.ContainsFunc(only, func(n int) bool { return f.By == fmt.Sprint("step ", n) })
	}), err
}

// TestBisect makes files depend on this and that, and wants the right thing
// blamed, by rebuilding no more than is needed.
func TestBisect(t *testing.T) {
	for _, tt := range []struct {
		name  string
		world world
		want  []string
		whole int // at most so many whole rebuilds after the first
	}{
		{"a step", world{files: map[string]depends{"/h": {by: "step 1", each: []string{vary.DomainHost}}, "/x": {by: "step 1"}}},
			[]string{"step 1: run depends on the host name: root:/h"}, 1},
		{"several", world{files: map[string]depends{"/u": {by: "step 1", each: []string{vary.Umask, vary.Environment}}, "/v": {by: "step 2", each: []string{vary.Kernel}}}},
			[]string{"step 1: run depends on the environment: root:/u", "step 1: run depends on the umask: root:/u", "step 2: run depends on the kernel's version: root:/v"}, 1},
		{"together", world{files: map[string]depends{"/t": {by: "step 1", all: []string{vary.Environment, vary.Umask}}}},
			[]string{"step 1: run depends on several of these together, on none alone: the environment,"}, 1},
		{"chance", world{files: map[string]depends{"/r": {by: "step 2", random: true}, "/h": {by: "step 1", each: []string{vary.Home}}}},
			[]string{"step 1: run depends on the home folder: root:/h", "step 2: run is different from run to run, with nothing varied", "with nothing varied the rebuild is not this image"}, 1},
		{"an installation", world{files: map[string]depends{"/s": {by: "scriptlets", each: []string{vary.Timezone}}}},
			[]string{"scriptlets depends on the time zone: root:/s"}, 12},
		{"a step on the root", world{files: map[string]depends{"/s": {by: "step 3", each: []string{vary.Timezone}}}},
			[]string{"step 3: run depends on the time zone: root:/s"}, 12},
		{"a failure", world{files: map[string]depends{"/f": {by: "step 1", each: []string{vary.Locales}, fails: true}}},
			[]string{"the rebuild fails where the locale is another: the build under other conditions failed: step 1: exit code 1"}, 1},
		{"failing at all times", world{drift: "x", files: map[string]depends{"/f": {by: "step 1", fails: true}}},
			[]string{"nothing that was varied is to blame: the rebuild fails with none of it varied as well"}, 1},
		{"another image", world{drift: "x", files: map[string]depends{"/f": {by: "step 1"}}},
			[]string{"nothing that was varied is to blame: with none of it varied the rebuild is the same other image"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &lock.Lock{Name: "x", Arches: []string{"x86_64"}, Steps: []lock.Step{{Run: "true"}, {Run: "true"}, {Run: `touch "$ROOT/x"`}}}
			v := &verification{
				Options: Options{Lock: l, Arch: "x86_64", Bisect: true, Rebuild: tt.world.rebuild, Steps: tt.world.alone, Conditions: vary.Settings{
					Vary: vary.Names(), Inside: true, Base: t.TempDir(), Euid: 1000, CPUs: 2, FSType: func(string) string { return "ext4" },
				}},
				disk: &Disk{Format: lock.OutputRaw}, report: &Report{}, differs: true,
			}
			c, err := v.vary(v.Conditions)
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(c.Dir)
			if err := v.Rebuild(t.Context(), c, c.Dir); err != nil {
				v.all = failed(err)
			} else if v.all, err = v.outcome(c.Dir); err != nil {
				t.Fatal(err)
			}
			honest := world{files: tt.world.files}
			if none, err := v.whole(t.Context(), nil); err == nil && none.failure == "" && tt.world.drift == "" && !honest.files["/r"].random {
				v.report.Image.SHA256 = none.image
			}
			before := tt.world.runs
			if err := v.bisect(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range v.report.Blame {
				got = append(got, b.Text)
			}
			slices.Sort(got)
			if len(got) != len(tt.want) || tt.world.runs-before > tt.whole {
				t.Fatalf("%d rebuilds, at most %d wanted; got %q", tt.world.runs-before, tt.whole, got)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
			if tt.world.steps > 40 {
				t.Errorf("%d rebuilds of steps", tt.world.steps)
			}
		})
	}
}

// TestBisectNot looks for nobody to blame where that is not asked for, or there is
// nothing to explain.
func TestBisectNot(t *testing.T) {
	never := func(context.Context, *vary.Conditions, string) error {
		t.Error("something was rebuilt")
		return nil
	}
	varied := []Condition{{Name: vary.Umask, Varied: true}}
	for _, v := range []*verification{
		{Options: Options{Rebuild: never}, differs: true, report: &Report{Conditions: varied}},
		{Options: Options{Rebuild: never, Bisect: true}, report: &Report{Conditions: varied}},
		{Options: Options{Rebuild: never, Bisect: true}, differs: true, report: &Report{}},
		{Options: Options{Bisect: true}, differs: true, report: &Report{Conditions: varied}},
	} {
		if err := v.bisect(t.Context()); err != nil || v.report.Blame != nil {
			t.Errorf("got %v, %v", v.report.Blame, err)
		}
	}
}
