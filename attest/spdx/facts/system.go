package facts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"caisson/attest/spdx"
	"caisson/build"
	"caisson/build/image/cpio"
	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/prefetch/cas"
)

// osRelease is where distributions keep what os-release (5) describes.
const osRelease = "/usr/lib/os-release"

// System reads the os-release of the root as its package has it, whatever the
// manifest's settings have added to it there. It is zero where no package brings
// one.
func System(store *cas.Store, l *lock.Lock, files []build.File) (spdx.System, error) {
	for i := range files {
		f := &files[i]
		if f.Part != lock.SetRoot || f.Path != osRelease {
			continue
		}
		for _, name := range f.Inputs {
			kind, name, _ := strings.Cut(name, "/")
			in := l.Find(kind, name)
			if in == nil || in.RPM == nil {
				continue
			}
			text, err := packaged(store, in, osRelease)
			if err != nil {
				return spdx.System{}, fmt.Errorf("%s/%s: %w", in.Kind, in.Name, err)
			}
			s := parse(text)
			s.Input = in.Kind + "/" + in.Name
			return s, nil
		}
	}
	return spdx.System{}, nil
}

// packaged reads one file of an RPM; "" where that does not have it.
func packaged(store *cas.Store, in *lock.Input, name string) (string, error) {
	f, err := store.Open(in.SHA256)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := f.Verify(); err != nil {
		return "", err
	}
	br := bufio.NewReader(f)
	p, err := rootfs.ReadPackage(br)
	if err != nil {
		return "", err
	}
	payload, err := p.Payload(br)
	if err != nil {
		return "", err
	}
	defer payload.Close()
	for r := cpio.NewReader(payload); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if strings.TrimPrefix(h.Name, ".") == name {
			return readText(name, r)
		}
	}
}

// parse reads assignments as os-release (5) has them: of a shell, without
// substitution.
func parse(text string) spdx.System {
	var s spdx.System
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		switch key {
		case "ID":
			s.ID = value
		case "VERSION_ID":
			s.VersionID = value
		case "CPE_NAME":
			s.CPE = value
		}
	}
	return s
}
