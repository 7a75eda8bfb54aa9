package build

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/build/sandbox"
)

// scriptRuns finds out which package's scriptlet did what while rpm ran. What rpm
// starts are the packages' scripts, each known by its program and its text; where
// several packages have the same one, by the order in which rpm installs them. Lua
// runs in rpm itself, between one package's files and the next one's: it is known
// where only one package has a Lua script for that place, or, when it starts a
// program, where only one of them names that. What a script leaves running counts
// as of the next one. Where it is not known, nobody is named.
type scriptRuns struct {
	packages []*rootfs.Package
	byKey    map[scriptKey][]scriptOf
	// runs are the scripts that rpm started, in their order; the zero key is none
	// that a package has.
	runs     []scriptKey
	programs []string // of runs
	labels   []string // of runs, once settled; empty where it is not known
	// events is what was done in the root, in its order.
	events []rpmEvent
	wrote  map[string][]int // indexes of events, by path
	set    map[string]int   // index of the last, by path
	owner  map[string]int   // packages by the paths of their files; nil where none has Lua
}

// scriptKey is what rpm runs.
type scriptKey struct{ program, body string }

type scriptOf struct {
	pkg  int // index of the package
	kind string
}

// rpmEvent is a change of a file, by rpm itself where by is 0, else by the by-th
// program that it started.
type rpmEvent struct {
	by   int
	path string
	// unpacking: it is by a call that rpm makes for what is in a package, and a
	// script in Lua does not.
	unpacking bool
}

// maxScript is the longest script that is compared, in bytes.
const maxScript = 4 << 20

func newScriptRuns(packages []*rootfs.Package) *scriptRuns {
	r := &scriptRuns{packages: packages, byKey: map[scriptKey][]scriptOf{}, wrote: map[string][]int{}, set: map[string]int{}}
	for i, p := range packages {
		for k := range p.Scripts {
			s := &p.Scripts[k]
			key := scriptKey{s.Program, s.Body}
			r.byKey[key] = append(r.byKey[key], scriptOf{i, s.Kind})
		}
	}
	return r
}

// told is the sandbox's Spec.Told.
func (r *scriptRuns) told(d sandbox.Deed) {
	if d.Args != nil {
		r.runs, r.programs = append(r.runs, r.identify(d)), append(r.programs, strings.Join(d.Args[:min(1, len(d.Args))], ""))
		return
	}
	p, ok := strings.CutPrefix(d.Path, sysroot+"/")
	if !ok {
		return
	}
	if d.Owner {
		if d.By > 0 || d.Call == "chown" { // rpm itself uses others
			r.events = append(r.events, rpmEvent{by: d.By, path: p})
			r.set[p] = len(r.events) - 1
		}
		if !strings.HasPrefix(d.Call, "mknod") {
			return
		}
	}
	unpacking := d.By == 0 && slices.Contains([]string{"renameat", "linkat", "symlinkat", "mkdirat"}, d.Call)
	r.events = append(r.events, rpmEvent{d.By, p, unpacking})
	at := len(r.events) - 1
	if from, ok := strings.CutPrefix(d.From, sysroot+"/"); ok {
		if unpacking { // from the name that it had while it was not whole
			delete(r.wrote, from)
		}
		r.renamed(from, p)
	}
	if w := r.wrote[p]; len(w) == 0 || r.events[w[len(w)-1]].by != d.By {
		r.wrote[p] = append(w, at)
	}
}

// renamed moves what is known of a path. What was there counts as what the new
// file was made from, as with /etc/passwd.
func (r *scriptRuns) renamed(from, to string) {
	r.wrote[to] = append(r.wrote[to], r.wrote[from]...)
	delete(r.wrote, from)
	delete(r.set, to)
	if at, ok := r.set[from]; ok {
		r.set[to] = at
		delete(r.set, from)
	}
}

// identify finds the script by the arguments of what rpm starts: the program, the
// file that has the script, and numbers.
func (r *scriptRuns) identify(d sandbox.Deed) scriptKey {
	args := d.Args
	for range 3 {
		if key := (scriptKey{program: strings.Join(args, " ")}); r.byKey[key] != nil {
			return key
		}
		if n := len(args) - 1; n > 0 {
			if body, err := d.Read(args[n], maxScript); err == nil {
				if key := (scriptKey{strings.Join(args[:n], " "), string(body)}); r.byKey[key] != nil {
					return key
				}
			}
			if _, err := strconv.Atoi(args[n]); err == nil {
				args = args[:n]
				continue
			}
		}
		break
	}
	return scriptKey{}
}

// settle finds the packages whose scripts ran, when rpm has installed the packages
// in the order of their printed names.
func (r *scriptRuns) settle(dir string, printed []string) error {
	index := map[string]int{}
	for i, p := range r.packages {
		index[namedEpoch.ReplaceAllString(p.NEVRA, "-")] = i
	}
	var order []int
	for _, name := range printed {
		if i, ok := index[name]; ok {
			order = append(order, i)
		}
	}
	times := map[scriptKey]int{}
	for _, key := range r.runs {
		times[key]++
	}
	owners := map[scriptKey][]scriptOf{}
	for key, n := range times {
		owners[key] = r.owners(key, order, n)
	}
	seen := map[scriptKey]int{}
	for _, key := range r.runs {
		label := ""
		if o := owners[key]; len(o) > 0 {
			label = r.label(o[seen[key]])
		}
		seen[key]++
		r.labels = append(r.labels, label)
	}
	return r.nameLua(dir, order)
}

// label is a script as files.json names it.
func (r *scriptRuns) label(s scriptOf) string { return s.kind + " of " + r.packages[s.pkg].NEVRA }

// owners are the scripts that n runs of a key were, in their order; nil where that
// is not known.
func (r *scriptRuns) owners(key scriptKey, order []int, n int) []scriptOf {
	all := r.byKey[key]
	if len(all) == 1 {
		return slices.Repeat(all, n)
	}
	if slices.ContainsFunc(all, func(s scriptOf) bool { return strings.Contains(s.kind, "trigger") }) {
		return nil
	}
	var out []scriptOf
	for _, kinds := range [][]string{{"pretrans"}, {"pre", "post"}, {"posttrans"}} {
		for _, p := range order {
			for _, kind := range kinds {
				if s := (scriptOf{p, kind}); slices.Contains(all, s) {
					out = append(out, s)
				}
			}
		}
	}
	if len(out) != n {
		return nil
	}
	return out
}

// lua is the program of scripts that run in rpm itself.
const lua = "<lua>"

// nameLua gives events of rpm itself that are no package's files the number of a
// run of the Lua script that must have been at work.
func (r *scriptRuns) nameLua(dir string, order []int) error {
	if !slices.ContainsFunc(r.packages, hasLua) {
		return nil
	}
	owner, err := payloads(dir, r.packages)
	if err != nil {
		return err
	}
	r.owner = owner
	place := make([]int, len(r.packages)) // of each package in the order
	for at, i := range order {
		place[i] = at
	}
	next := make([]int, len(r.events)) // place of the package whose file comes next
	at := len(order)
	for i := len(r.events) - 1; i >= 0; i-- {
		if p, ok := owner[r.events[i].path]; ok && r.events[i].unpacking {
			at = place[p]
		}
		next[i] = at
	}
	scripts := r.luaScripts(place)
	last := -1
	for i := range r.events {
		e := &r.events[i]
		if p, ok := owner[e.path]; ok && e.unpacking {
			last = place[p]
		} else if e.by == 0 || r.labels[e.by-1] == "" {
			r.nameEvent(e, between(scripts, last, next[i], len(order)))
		}
	}
	return nil
}

// nameEvent gives an event to the only one of the scripts that can have been at
// work, if there is one. What ran is in rpm, or a program that it started.
func (r *scriptRuns) nameEvent(e *rpmEvent, scripts []placedScript) {
	if e.by > 0 && len(scripts) > 1 {
		scripts = slices.DeleteFunc(scripts, func(s placedScript) bool { return !strings.Contains(s.body, r.programs[e.by-1]) })
	}
	if len(scripts) == 1 {
		r.labels = append(r.labels, r.label(scripts[0].scriptOf))
		e.by = len(r.labels)
	}
}

// placedScript is a script and its package's place in the order of installation.
type placedScript struct {
	scriptOf
	at   int
	body string
}

func (r *scriptRuns) luaScripts(place []int) []placedScript {
	var out []placedScript
	for i, p := range r.packages {
		for k := range p.Scripts {
			if p.Scripts[k].Program == lua {
				out = append(out, placedScript{scriptOf{i, p.Scripts[k].Kind}, place[i], p.Scripts[k].Body})
			}
		}
	}
	return out
}

func hasLua(p *rootfs.Package) bool {
	return slices.ContainsFunc(p.Scripts, func(s rootfs.Script) bool { return s.Program == lua })
}

// between are the scripts that can have run in rpm after the files of the package
// at one place and before those of the one at another, of n.
func between(scripts []placedScript, last, next, n int) (found []placedScript) {
	for _, s := range scripts {
		can := true
		switch s.kind {
		case "pretrans":
			can = last < 0
		case "posttrans", "transfiletriggerin":
			can = next == n
		case "pre":
			can = s.at > last && s.at <= next
		case "post":
			can = s.at >= last && s.at < next
		}
		if can {
			found = append(found, s)
		}
	}
	return found
}

// payloads are the packages' files by the paths that they have in a root whose
// folders are there: through its links.
func payloads(dir string, packages []*rootfs.Package) (map[string]int, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	base, err := os.Readlink(fmt.Sprint("/proc/self/fd/", root))
	if err != nil {
		return nil, err
	}
	folders := map[string]string{}
	out := map[string]int{}
	for i, p := range packages {
		for k := range p.Files {
			folder, name := path.Split(p.Files[k].Path)
			at, ok := folders[folder]
			if !ok {
				at = strings.Trim(folder, "/")
				if fd, err := unix.Openat2(root, folder, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}); err == nil {
					real, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
					unix.Close(fd)
					if err != nil {
						return nil, err
					}
					at = strings.TrimPrefix(strings.TrimPrefix(real, base), "/")
				}
				folders[folder] = at
			}
			out[filepath.Join(at, name)] = i
		}
	}
	return out, nil
}

// maxNamed is how many scripts are named as those that made a file.
const maxNamed = 3

// made says of a path of the root how rpm's installation made or changed it.
func (r *scriptRuns) made(p string, dir bool) origin {
	how := byInstallation(p, dir)
	if how.by == "rpm" {
		return how
	}
	var by []string
	for _, at := range r.wrote[p] {
		n := r.events[at].by
		_, isPayload := r.owner[p]
		switch {
		case n == 0 && (isPayload || r.owner == nil): // rpm's own work
			continue
		case n == 0 || r.labels[n-1] == "":
			return how
		}
		if !slices.Contains(by, r.labels[n-1]) {
			by = append(by, r.labels[n-1])
		}
	}
	switch more := len(by) - maxNamed; {
	case len(by) == 0:
	case more > 0:
		how.by = fmt.Sprintf("%s and %d more", strings.Join(by[:maxNamed], ", "), more)
	default:
		how.by = strings.Join(by, ", ")
	}
	return how
}

// setBy are the scripts that gave files their owners, attributes and device
// numbers, by path.
func (r *scriptRuns) setBy() map[string]string {
	out := map[string]string{}
	for p, at := range r.set {
		if n := r.events[at].by; n > 0 {
			out[p] = r.labels[n-1]
			if out[p] == "" {
				out[p] = "scriptlets"
			}
		}
	}
	return out
}
