package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// apt is the machine's apt with the machine's sources, keyrings and settings, and with state and cache of its own, so that
// it needs no privileges and changes nothing. It believes that the dropped packages are installed and no others.
type apt struct {
	dir      string // of state and cache
	suite    string // of the mirror; "" for what the machine's sources have
	progress io.Writer
}

// listsAge is how old package lists may be before they are fetched again.
const listsAge = 24 * time.Hour

// download is a package that apt chose.
type download struct {
	File   string // below the archive folder
	Size   int64
	SHA256 string
}

func openApt(ctx context.Context, dir, suite string, progress io.Writer) (*apt, error) {
	a := &apt{dir: dir, suite: suite, progress: progress}
	for _, d := range []string{"conf.d", "lists/partial", "archives/partial", "none/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := a.configure(""); err != nil {
		return nil, err
	}
	if suite != "" {
		sources, err := a.suiteSources(ctx)
		if err != nil {
			return nil, err
		}
		if err := a.configure(sources); err != nil {
			return nil, err
		}
	}
	return a, a.update(ctx)
}

// configure writes the configuration: the machine's own files, linked, and one that comes after them. The sources are in
// place of the machine's and of its preferences, unless they are "".
func (a *apt) configure(sources string) error {
	parts := a.path("conf.d")
	own, err := filepath.Glob("/etc/apt/apt.conf.d/*")
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(parts, "*"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	for _, f := range own {
		if err := os.Symlink(f, filepath.Join(parts, filepath.Base(f))); err != nil {
			return err
		}
	}
	settings := fmt.Sprintf(`
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::Languages;
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::ForceHash "SHA256";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "";
Debug::NoLocking "true";
Dir::State %[1]q;
Dir::State::lists %[2]q;
Dir::State::status %[3]q;
Dir::Cache %[1]q;
Dir::Cache::archives %[4]q;
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Log %[1]q;
`, a.dir, a.path("lists"), a.statusPath(), a.path("archives"))
	if sources != "" {
		list, none := a.path("sources.list"), a.path("none")
		if err := writeFile(list, []byte(sources), 0o644); err != nil {
			return err
		}
		settings += fmt.Sprintf(`
#clear APT::Default-Release;
Dir::Etc::sourcelist %[1]q;
Dir::Etc::sourceparts %[2]q;
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts %[2]q;
`, list, none)
	}
	if err := writeFile(filepath.Join(parts, "zz-debrepo.conf"), []byte(settings), 0o644); err != nil {
		return err
	}
	return writeFile(a.path("apt.conf"), fmt.Appendf(nil, "Dir::Etc::parts %q;\n", parts), 0o644)
}

// statusPath is the status file of this converter: another drops other packages.
func (a *apt) statusPath() string { return a.path("status-" + strconv.Itoa(converterVersion)) }

func (a *apt) path(name string) string { return filepath.Join(a.dir, name) }

// run runs apt-get or apt-cache and gives its output.
func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+a.path("apt.conf"), "LC_ALL=C.UTF-8")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		text := bytes.TrimSpace(append(stdout.Bytes(), stderr.Bytes()...))
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, text)
	}
	return stdout.String(), nil
}

// update fetches the package lists where they are missing or old, and writes the status file.
// The time of the status file is the time of the lists.
func (a *apt) update(ctx context.Context) error {
	st, err := os.Stat(a.statusPath())
	if err == nil && time.Since(st.ModTime()) < listsAge {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fmt.Fprintln(a.progress, "debrepo: fetching package lists")
	if err := writeFile(a.statusPath(), nil, 0o644); err != nil {
		return err
	}
	if _, err := a.run(ctx, "apt-get", "-qq", "update"); err != nil {
		return errors.Join(err, os.Remove(a.statusPath()))
	}
	status, err := a.status(ctx)
	if err != nil {
		return errors.Join(err, os.Remove(a.statusPath()))
	}
	return writeFile(a.statusPath(), []byte(status), 0o644)
}

// status is a dpkg status file in which the dropped packages are installed, as their candidates are, but need nothing.
func (a *apt) status(ctx context.Context) (string, error) {
	var status strings.Builder
	dropped, err := a.dropped(ctx)
	if err != nil {
		return "", err
	}
	for _, name := range dropped {
		text, err := a.run(ctx, "apt-cache", "--no-all-versions", "show", name)
		if err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			continue // a virtual package, or one that this release does not have
		}
		c, err := parseControl(text)
		if err != nil {
			return "", fmt.Errorf("apt-cache show %s: %w", name, err)
		}
		// base-passwd is downloaded, as its files are read.
		if c["Package"] == "" || c["Package"] == "base-passwd" {
			continue
		}
		fmt.Fprintf(&status, "Package: %s\nStatus: hold ok installed\n", c["Package"])
		for _, f := range []string{"Version", "Architecture", "Multi-Arch", "Provides"} {
			if c[f] != "" {
				fmt.Fprintf(&status, "%s: %s\n", f, c[f])
			}
		}
		status.WriteString("Maintainer: debrepo\nDescription: not needed in an image\n\n")
	}
	if status.Len() == 0 {
		return "", errors.New("apt knows none of Debian's basic packages: are there sources in /etc/apt?")
	}
	return status.String(), nil
}

var uriLine = regexp.MustCompile(`^'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})$`)

// choose says what apt would install for the packages. The folder "none" is an empty archive, as apt does not list what it has.
func (a *apt) choose(ctx context.Context, packages []string) ([]download, error) {
	args := append([]string{"install", "-qq", "-y", "--print-uris", "-o", "Dir::Cache::archives=" + a.path("none"), "--"}, packages...)
	out, err := a.run(ctx, "apt-get", args...)
	if err != nil {
		return nil, err
	}
	var all []download
	for line := range strings.Lines(out) {
		m := uriLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			if strings.HasPrefix(line, "'") {
				return nil, fmt.Errorf("apt-get --print-uris: %q is not understood", line)
			}
			continue
		}
		size, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, download{File: m[2], Size: size, SHA256: m[4]})
	}
	if len(all) == 0 {
		return nil, errors.New("apt-get --print-uris: nothing to download")
	}
	return all, nil
}

// fetch downloads what is missing in the archive folder.
func (a *apt) fetch(ctx context.Context, packages []string, all []download) error {
	missing, bytes := 0, int64(0)
	for _, d := range all {
		st, err := os.Stat(a.archive(d))
		if err != nil || st.Size() != d.Size {
			missing++
			bytes += d.Size
		}
	}
	if missing == 0 {
		return nil
	}
	fmt.Fprintf(a.progress, "debrepo: downloading %d packages, %d MB\n", missing, bytes>>20)
	_, err := a.run(ctx, "apt-get", append([]string{"install", "-qq", "-y", "--download-only", "--"}, packages...)...)
	return err
}

func (a *apt) archive(d download) string { return filepath.Join(a.path("archives"), d.File) }

// forget makes the next run fetch the lists again: a mirror has moved on.
func (a *apt) forget() error { return os.Remove(a.statusPath()) }
