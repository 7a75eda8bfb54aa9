package solve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"caisson/lock/rpmmd"
)

// scene is a small repository, installed packages and requests, as text: lines
// as primaryXML has them, those of installed packages after a "!", and specs
// after a "?".
type scene struct {
	packages, installed []rpmmd.Package
	specs               []string
}

var nevraLine = regexp.MustCompile(`^([a-z][a-z0-9+-]*)-([^- :]+:)?([^- :]+)-([^- :]+)\.(x86_64|i686|noarch|src)( |$)`)

func readScene(text string) *scene {
	sc := &scene{}
	seen := map[string]bool{}
	for _, l := range repoLines(text) {
		if spec, ok := strings.CutPrefix(l, "?"); ok {
			sc.specs = append(sc.specs, strings.TrimSpace(spec))
			continue
		}
		l, here := strings.CutPrefix(l, "!")
		m := nevraLine.FindStringSubmatch(l)
		if m == nil || len(sc.packages)+len(sc.installed) > 60 {
			continue
		}
		k := scenePackage(m, l)
		if seen[k.String()+fmt.Sprint(here)] {
			continue
		}
		seen[k.String()+fmt.Sprint(here)] = true
		if here {
			sc.installed = append(sc.installed, k)
		} else {
			sc.packages = append(sc.packages, k)
		}
	}
	return sc
}

// scenePackage is the package of a line, however odd its dependencies are.
func scenePackage(m []string, line string) rpmmd.Package {
	k := rpmmd.Package{Name: m[1], Arch: m[5], EVR: looseEVR(m[2] + m[3] + "-" + m[4]), Location: line[:min(len(line), 40)]}
	k.Checksum.Hex = line
	_, rest, _ := strings.Cut(line, " ")
	for part := range strings.SplitSeq(rest, "|") {
		rel, list, _ := strings.Cut(part, ":")
		to := map[string]*[]rpmmd.Dep{"Provides": &k.Provides, "Requires": &k.Requires, "Conflicts": &k.Conflicts, "Obsoletes": &k.Obsoletes,
			"Recommends": &k.Recommends, "Suggests": &k.Suggests, "Supplements": &k.Supplements, "Enhances": &k.Enhances}[strings.TrimSpace(rel)]
		for d := range strings.SplitSeq(list, ",") {
			switch fields := strings.Fields(d); {
			case strings.TrimSpace(rel) == "Files" && strings.HasPrefix(strings.TrimSpace(d), "/"):
				k.Files = append(k.Files, strings.TrimSpace(d))
			case to == nil:
			case len(fields) == 3 && !strings.HasPrefix(fields[0], "("):
				r := richParser{s: fields[1]}
				*to = append(*to, rpmmd.Dep{Name: fields[0], Flags: r.flags(), EVR: looseEVR(fields[2])})
			default:
				*to = append(*to, rpmmd.Dep{Name: strings.TrimSpace(d)})
			}
		}
	}
	return k
}

func (sc *scene) pool(t *testing.T) *Pool {
	p, err := NewPool([]Repo{{ID: "r", Packages: sc.packages, Filelists: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(`<filelists></filelists>`)), nil
	}}}, Options{Arch: "x86_64", Installed: sc.installed})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// FuzzRepository asks a made-up repository: the solver ends, its answer holds
// together, is the same again, and does not depend on the order of packages.
func FuzzRepository(f *testing.F) {
	for _, s := range []string{
		library + "\n? app\n? lib, docs",
		dnfMain + "\n!lib-1-1.x86_64\n? lib\n? multi",
		"a-1-1.noarch Requires: (b if (c if (d if b else c) else d) else a)\nb-1-1.noarch\n? a",
		"a-1-1.noarch Requires: ((b and c) or (d and e)), ((b or c) and (d or e)) | Conflicts: (a unless (b with c))\nb-1-1.noarch Provides: c, d = 1, e\n? a",
		"kernel-1-1.x86_64\nkernel-2-1.x86_64 Obsoletes: kernel < 2\n!kernel-1-1.x86_64\n? kernel-2\n? *",
	} {
		f.Add(s, uint8(0))
	}
	for seed := range int64(12) {
		w := newWorld(seed)
		text := w.Repos[0].text
		for _, l := range repoLines(w.installed) {
			text += "\n!" + l
		}
		for _, r := range w.Requests[:4] {
			text += "\n? " + strings.Join(r.Specs, ", ")
		}
		f.Add(text, uint8(seed*21))
	}
	f.Fuzz(func(t *testing.T, text string, bits uint8) {
		if len(text) > 8<<10 {
			return
		}
		sc := readScene(text)
		p := sc.pool(t)
		sc.packages = slices.Clone(sc.packages)
		slices.Reverse(sc.packages)
		other := sc.pool(t)
		for _, spec := range sc.specs[:min(4, len(sc.specs))] {
			req := Request{WeakDeps: bits&1 > 0, Best: bits&2 > 0, AllowErasing: bits&4 > 0}
			for s := range strings.SplitSeq(spec, ",") {
				s = strings.TrimSpace(s)
				switch bits & 24 {
				case 8:
					req.Upgrade = append(req.Upgrade, s)
				case 16:
					req.Reinstall = append(req.Reinstall, s)
				default:
					req.Specs = append(req.Specs, s)
				}
			}
			got := answer(t, p, req)
			for _, again := range []string{answer(t, p, req), answer(t, other, req)} {
				if again != got {
					t.Errorf("%+v: got\n%s\nand then\n%s", req, got, again)
				}
			}
		}
	})
}

// answer asks, checks that what comes holds together, and returns it as text.
func answer(t *testing.T, p *Pool, req Request) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	sol, err := p.SolveContext(ctx, req)
	var problem *Problem
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		t.Fatalf("%+v: no answer in five seconds", req)
	case errors.As(err, &problem):
		if len(problem.Lines) == 0 {
			t.Errorf("%+v: a problem without a text", req)
		}
		return strings.Join(problem.Lines, "\n")
	case err != nil:
		return err.Error()
	}
	list := changes(sol)
	if !p.holdsTogether(t, list, nil) {
		t.Errorf("%+v: %v does not hold together", req, list)
	}
	return strings.Join(list, "\n")
}
