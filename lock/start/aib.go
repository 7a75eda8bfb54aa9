package start

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"caisson/lock"
)

// aibWalk goes through an .aib.yml. Keys that are not followed are noted, for
// the format grows and a file of it is not Caisson's to check.
type aibWalk struct {
	*draft
	folder string
	onRoot bool // a step changes what others put there
}

// aib reads a manifest of automotive-image-builder.
func (d *draft) aib(name string, b []byte) error {
	var top yaml.Node
	if err := decodeMapping(name, b, &top); err != nil {
		return err
	}
	w := aibWalk{draft: d, folder: filepath.Dir(name)}
	first := len(d.m.Steps)
	for key, value := range pairs(&top) {
		switch key.Value {
		case "name":
			w.called(value.Value)
		case "version":
			w.try(key.Line, "version: "+value.Value, func(m *lock.Manifest) { m.Image.Version = value.Value })
		case "content":
			w.each(value, "content.", w.content)
		case "image":
			w.each(value, "image.", w.image)
		case "auth":
			w.each(value, "auth.", w.auth)
		case "kernel":
			w.each(value, "kernel.", w.kernel)
		case "qm":
			w.note(key.Line, key.Value, "there is no second root: what is in it can be an OCI input, unpacked by a run step")
		case "network":
			w.note(key.Line, key.Value, "how the network is set up belongs into an overlay, as files of NetworkManager or systemd-networkd")
		case "target":
			w.note(key.Line, key.Value, "an image is for machines with UEFI: name the drivers of their disks in sets.initrd.modules")
		default:
			w.note(key.Line, key.Value, "it has no counterpart")
		}
	}
	if w.onRoot {
		d.stepsOnRoot(first)
	}
	return nil
}

// each follows the keys of a mapping, and notes those that follow does not
// know.
func (w *aibWalk) each(n *yaml.Node, at string, follow func(key, value *yaml.Node) bool) {
	if n.Kind != yaml.MappingNode {
		w.note(n.Line, at, "it is not a mapping")
	}
	for key, value := range pairs(n) {
		if !follow(key, value) {
			w.note(key.Line, at+key.Value, "it has no counterpart")
		}
	}
}

// texts are the scalars of a list, each with its line.
func (w *aibWalk) texts(n *yaml.Node, follow func(line int, text string)) {
	for _, e := range n.Content {
		if n.Kind == yaml.SequenceNode && e.Kind == yaml.ScalarNode {
			follow(e.Line, e.Value)
		} else {
			w.note(e.Line, "a value", "it is not a text")
		}
	}
}

// fields are the scalars of a mapping.
func fields(n *yaml.Node) map[string]string {
	out := map[string]string{}
	for key, value := range pairs(n) {
		if value.Kind == yaml.ScalarNode {
			out[key.Value] = value.Value
		}
	}
	return out
}

func (w *aibWalk) content(key, value *yaml.Node) bool {
	switch key.Value {
	case "rpms":
		w.texts(value, func(line int, p string) { w.packages(line, lock.SetRoot, p) })
	case "enable_repos":
		w.texts(value, func(line int, r string) {
			w.note(line, "enable_repos "+r, "it is the builder's own name: give the address in rpm.repos")
		})
	case "repos":
		for _, e := range value.Content {
			f := fields(e)
			r := lock.ManifestRepo{ID: f["id"]}
			if f["baseurl"] != "" {
				r.BaseURL = lock.StringList{f["baseurl"]}
			}
			if p, ok := f["priority"]; ok {
				var n int
				if (&yaml.Node{Kind: yaml.ScalarNode, Value: p}).Decode(&n) == nil {
					r.Priority = &n
				}
			}
			w.repo(e.Line, r)
		}
	case "container_images":
		for _, e := range value.Content {
			f := fields(e)
			ref := f["source"]
			switch {
			case f["digest"] != "":
				ref += "@" + f["digest"]
			case f["tag"] != "":
				ref += ":" + f["tag"]
			}
			w.draft.image(e.Line, ref)
			w.note(e.Line, "container_images "+f["source"], "the image is an input; that it is in the root's container storage needs a run step, with skopeo in sets.tools")
		}
	case "systemd":
		for k, v := range pairs(value) {
			how, ok := map[string]string{"enabled_services": "enable", "disabled_services": "disable", "masked_services": "mask"}[k.Value]
			if !ok {
				w.note(k.Line, "systemd."+k.Value, "it has no counterpart")
				continue
			}
			w.texts(v, func(line int, u string) { w.services(line, how, u) })
		}
	default:
		return w.contentFiles(key, value)
	}
	return true
}

// contentFiles takes over the keys about files.
func (w *aibWalk) contentFiles(key, value *yaml.Node) bool {
	switch key.Value {
	case "add_files":
		for _, e := range value.Content {
			w.file(e, fields(e))
		}
	case "remove_files":
		for _, e := range value.Content {
			w.try(e.Line, "remove_files", func(m *lock.Manifest) { add(&m.Image.Remove, fields(e)["path"]) })
		}
	case "make_dirs":
		for _, e := range value.Content {
			f := fields(e)
			mode := f["mode"]
			if mode == "" || strings.Trim(mode, "01234567") != "" {
				mode = "0755"
			}
			w.script(e.Line, "make_dirs "+f["path"], f["path"], "install -d -m "+mode+` "$OUT"`+quote(f["path"]))
		}
	case "add_symlinks":
		for _, e := range value.Content {
			f := fields(e)
			link := f["link"]
			w.script(e.Line, "add_symlinks "+link, link, `mkdir -p "$OUT"`+quote(filepath.Dir(link))+"\nln -s "+quote(f["target"])+` "$OUT"`+quote(link)+"\n")
		}
	case "chmod_files", "chown_files":
		for _, e := range value.Content {
			w.attributes(e, key.Value, fields(e))
		}
	case "sbom":
		// The bill of materials is beside the image, always.
	default:
		return false
	}
	return true
}

// attributes makes a step of one entry of chmod_files or chown_files.
func (w *aibWalk) attributes(e *yaml.Node, key string, f map[string]string) {
	what, option := key+" "+f["path"], ""
	if f["recursive"] == "true" {
		option = "-R "
	}
	switch {
	case key == "chmod_files" && f["mode"] != "":
		w.script(e.Line, what, f["path"], "chmod "+option+quote(f["mode"])+` "$ROOT"`+quote(f["path"]))
	case key == "chown_files" && f["user"]+f["group"] != "":
		owner := f["user"]
		if f["group"] != "" {
			owner += ":" + f["group"]
		}
		w.script(e.Line, what, f["path"], `chroot "$ROOT" chown `+option+quote(owner)+" "+quote(f["path"]))
	default:
		w.note(e.Line, what, "it says no mode and no owner")
		return
	}
	w.onRoot = true
}

// script adds a step about a path.
func (w *aibWalk) script(line int, what, at, script string) {
	if !filepath.IsAbs(at) || strings.ContainsAny(script, "\x00") {
		w.note(line, what, "it has no absolute path")
		return
	}
	w.step(line, what, "", script)
}

// file takes over one entry of add_files.
func (w *aibWalk) file(e *yaml.Node, f map[string]string) {
	what := "add_files " + f["path"]
	if _, ok := f["text"]; ok {
		w.text(e.Line, what, f["text"], f["path"])
		return
	}
	switch {
	case f["source_glob"] != "":
		w.files(e, what, f)
	case f["source_path"] != "":
		w.place(e.Line, what, filepath.Join(w.folder, filepath.FromSlash(f["source_path"])), f["path"], "")
	case f["url"] != "":
		w.note(e.Line, what, "a file from a server is an input with its SHA-256: name it in inputs.files, and install it by a run step")
	default:
		w.note(e.Line, what, "only path, text and source_path are followed")
	}
}

// files takes over the files that a pattern finds now.
func (w *aibWalk) files(e *yaml.Node, what string, f map[string]string) {
	found, err := filepath.Glob(filepath.Join(w.folder, filepath.FromSlash(f["source_glob"])))
	if err != nil || strings.Contains(f["source_glob"], "**") || f["preserve_path"] == "true" {
		w.note(e.Line, what, "only patterns without ** and preserve_path are followed: make a folder that has the files where they go, and name that in image.overlay")
		return
	}
	if len(found) == 0 && f["allow_empty"] != "true" {
		w.note(e.Line, what, "there is nothing here that "+shorten(f["source_glob"])+" finds")
	}
	for _, name := range found {
		w.place(e.Line, what, name, strings.TrimSuffix(f["path"], "/")+"/", "")
	}
}

// aibSize is a size as the format has it: bytes, or with a unit.
var aibSize = regexp.MustCompile(`^([0-9]+) *(KiB|MiB|GiB|kB|MB|GB)?$`)

func (w *aibWalk) image(key, value *yaml.Node) bool {
	switch key.Value {
	case "hostname":
		w.try(key.Line, "hostname: "+value.Value, func(m *lock.Manifest) { m.Image.Hostname = value.Value })
	case "sealed":
		// An image is sealed, always.
	case "selinux_mode":
		if value.Value == "permissive" {
			w.cmdline(key.Line, "enforcing=0")
		}
	case "image_size":
		if m := aibSize.FindStringSubmatch(value.Value); m != nil && strings.HasSuffix(m[2], "iB") {
			w.try(key.Line, "image_size: "+value.Value, func(d *lock.Manifest) { d.Image.Disk.Size = m[1] + m[2] })
		} else {
			w.note(key.Line, "image_size: "+value.Value, "a size is given as image.disk.size, such as 8GiB")
		}
	case "partitions":
		w.note(key.Line, key.Value, "the disk has an ESP, the root and its hash tree: give sizes in image.disk, and space at run time in image.scratch")
	default:
		return false
	}
	return true
}

func (w *aibWalk) auth(key, value *yaml.Node) bool {
	switch key.Value {
	case "root_password":
		if value.Tag == "!!null" {
			w.user(key.Line, key.Value, lock.User{Name: "root", Password: lock.PasswordLocked})
		} else if p := w.password(key.Line, "root", value.Value, false); p != "" {
			w.user(key.Line, key.Value, lock.User{Name: "root", Password: p})
		}
	case "root_ssh_keys":
		w.texts(value, func(line int, k string) { w.user(line, key.Value, lock.User{Name: "root", SSHKeys: []string{k}}) })
	case "users":
		for k, v := range pairs(value) {
			w.account(k, v)
		}
	case "groups":
		for k, v := range pairs(value) {
			var g struct {
				GID *uint32 `yaml:"gid"`
			}
			if v.Decode(&g) != nil {
				w.note(v.Line, k.Value, "its gid is not a number")
				continue
			}
			w.try(k.Line, "groups "+k.Value, func(m *lock.Manifest) { m.Image.Groups = append(m.Image.Groups, lock.Group{Name: k.Value, GID: g.GID}) })
		}
	case "sshd_config":
		w.note(key.Line, key.Value, "put it into an overlay, below /etc/ssh/sshd_config.d")
	default:
		return false
	}
	return true
}

// account takes over one entry of auth.users.
func (w *aibWalk) account(key, value *yaml.Node) {
	var u struct {
		UID      *uint32  `yaml:"uid"`
		GID      *uint32  `yaml:"gid"`
		Groups   []string `yaml:"groups"`
		Home     string   `yaml:"home"`
		Shell    string   `yaml:"shell"`
		Password string   `yaml:"password"`
		Key      string   `yaml:"key"`
		Keys     []string `yaml:"keys"`
	}
	if value.Decode(&u) != nil {
		w.note(value.Line, "users "+key.Value, "its fields are of other types than expected")
		return
	}
	keys := slices.DeleteFunc(append(u.Keys, u.Key), func(k string) bool { return k == "" })
	w.user(key.Line, "users "+key.Value, lock.User{
		Name: key.Value, UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home, Shell: u.Shell,
		Password: w.password(key.Line, key.Value, u.Password, false), SSHKeys: keys,
	})
	for k := range pairs(value) {
		if !slices.Contains([]string{"uid", "gid", "groups", "home", "shell", "password", "key", "keys"}, k.Value) {
			w.note(k.Line, "users "+key.Value+" "+k.Value, "it has no counterpart")
		}
	}
}

func (w *aibWalk) kernel(key, value *yaml.Node) bool {
	switch key.Value {
	case "cmdline":
		w.texts(value, w.cmdline)
	case "debug_logging":
		if value.Value == "true" {
			w.cmdline(key.Line, "ignore_loglevel")
		}
	case "loglevel":
		w.cmdline(key.Line, "loglevel="+value.Value)
	case "kernel_package":
		w.packages(key.Line, lock.SetRoot, value.Value)
	case "remove_modules":
		w.texts(value, func(line int, k string) {
			w.try(line, "remove_modules "+k, func(m *lock.Manifest) { add(&m.Image.Modprobe.Deny, strings.TrimSuffix(k, ".ko")) })
		})
	case "kernel_version":
		w.note(key.Line, "kernel_version: "+value.Value, "ask for the version in the package's name: kernel-core-"+shorten(value.Value))
	default:
		return false
	}
	return true
}
