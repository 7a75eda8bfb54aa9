package start

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"caisson/lock"
)

// leadsOut is the error where a file lies beside the definition, or beside the
// manifest, by its name alone: it is a link to somewhere else.
func (d *draft) leadsOut(name string) error {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	within := func(dir, name string) bool {
		rel, err := filepath.Rel(dir, name)
		return err == nil && filepath.IsLocal(rel)
	}
	for _, dir := range []string{filepath.Dir(d.at), d.dir} {
		realDir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		if !within(dir, name) {
			continue
		}
		if !within(realDir, real) {
			return fmt.Errorf("it is a link that leads out of the folder, to %s: put the file itself there", shorten(real))
		}
		return nil
	}
	return nil
}

// place puts a file or folder of the project into the image: a folder that
// goes to / as an overlay, a file as an input and a step that installs it.
// mode is the file's, octal; empty for its own.
func (d *draft) place(line int, what, from, to, mode string) {
	st, err := os.Stat(from)
	if err != nil {
		d.note(line, what, "there is no "+shorten(from)+" here")
		return
	}
	rel, err := d.relative(from)
	if err == nil {
		err = d.leadsOut(from)
	}
	if err != nil {
		d.note(line, what, err.Error())
		return
	}
	if strings.HasSuffix(to, "/") && !st.IsDir() {
		to = path.Join(to, filepath.Base(from))
	}
	to = path.Clean("/" + to)
	switch {
	case st.IsDir() && to == "/":
		d.try(line, what, func(m *lock.Manifest) { add(&m.Image.Overlay, rel) })
	case st.IsDir():
		d.note(line, what, fmt.Sprintf("a folder goes to / only: make one that has it as %s, and name that in image.overlay", shorten(to)))
	case !st.Mode().IsRegular() || strings.ContainsAny(to, "\n\x00"):
		d.note(line, what, "it is not a file that can be installed")
	default:
		if mode == "" {
			mode = "0644"
			if st.Mode()&0o100 != 0 {
				mode = "0755"
			}
		}
		n := d.inputName(filepath.Base(from))
		if d.try(line, what, func(m *lock.Manifest) { m.Inputs.Files = append(m.Inputs.Files, lock.ManifestFile{Name: n, URL: rel}) }) {
			d.step(line, what, "Of "+shorten(d.at)+", line "+strconv.Itoa(line)+".", fmt.Sprintf(`install -D -m %s "$IN/%s" "$OUT"%s`, mode, n, quote(to)))
		}
	}
}

// text puts a file that a definition holds itself into the image.
func (d *draft) text(line int, what, content, to string) {
	if strings.ContainsAny(content+to, "\x00") {
		d.note(line, what, "it has a NUL in it")
		return
	}
	dest := quote(path.Clean("/" + to))
	d.step(line, what, "Of "+shorten(d.at)+", line "+strconv.Itoa(line)+".",
		fmt.Sprintf("install -D -m 0644 /dev/null \"$OUT\"%s\nprintf %%s %s > \"$OUT\"%s\n", dest, quote(content), dest))
}

// inputName is a name that no input has yet.
func (d *draft) inputName(base string) string {
	n := plainName(base)
	if n == "" {
		n = "file"
	}
	taken := func(s string) bool {
		in := &d.m.Inputs
		return slices.ContainsFunc(in.Files, func(f lock.ManifestFile) bool { return f.Name == s }) ||
			slices.ContainsFunc(in.OCI, func(o lock.ManifestOCI) bool { return o.Name == s || o.Name+".tar" == s }) ||
			slices.ContainsFunc(in.Go, func(g lock.ManifestGo) bool { return g.Name == s }) ||
			slices.ContainsFunc(in.Cargo, func(c lock.ManifestCargo) bool { return c.Name == s })
	}
	for i, free := 2, n; ; i++ {
		if !taken(free) {
			return free
		}
		free = fmt.Sprintf("%s-%d", n, i)
	}
}

// image adds an image as an input.
func (d *draft) image(line int, ref string) {
	if slices.ContainsFunc(d.m.Inputs.OCI, func(o lock.ManifestOCI) bool { return o.Ref == ref }) {
		return
	}
	last := ref[strings.LastIndexByte(ref, '/')+1:]
	if i := strings.IndexAny(last, ":@"); i >= 0 {
		last = last[:i]
	}
	n := d.inputName(last)
	at := fmt.Sprintf("inputs.oci[%d]", len(d.m.Inputs.OCI))
	if d.try(line, ref, func(m *lock.Manifest) { m.Inputs.OCI = append(m.Inputs.OCI, lock.ManifestOCI{Name: n, Ref: ref}) }) {
		d.comments[at] = "Steps find it as an image layout, $IN/" + n + ", and as $IN/" + n + ".tar. Say by whom it has to be signed: verify: {key: …}."
	}
}
