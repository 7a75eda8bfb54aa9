package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// control is the paragraph of a Debian control file, by field name.
type control map[string]string

// maxControl bounds control files and maintainer scripts.
const maxControl = 1 << 20

// parseControl reads one paragraph (Debian Policy 5.1). A continuation line keeps its leading space.
func parseControl(text string) (control, error) {
	c := control{}
	last := ""
	s := bufio.NewScanner(strings.NewReader(text))
	s.Buffer(nil, maxControl)
	for s.Scan() {
		line := s.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if len(c) > 0 {
				return c, nil
			}
		case line[0] == ' ' || line[0] == '\t':
			if last == "" {
				return nil, fmt.Errorf("control file starts with the continuation line %q", line)
			}
			c[last] += "\n" + line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("control file: line %q has no colon", line)
			}
			last = name
			c[name] = strings.TrimSpace(value)
		}
	}
	return c, s.Err()
}

// debControl is what the control archive of a .deb holds.
type debControl struct {
	fields    control
	conffiles map[string]bool // absolute paths
	postinst  string
}

func readControl(ctx context.Context, deb string) (*debControl, error) {
	d := &debControl{conffiles: map[string]bool{}}
	err := debTar(ctx, "--ctrl-tarfile", deb, func(h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		name := strings.TrimPrefix(h.Name, "./")
		if name != "control" && name != "conffiles" && name != "postinst" {
			return nil
		}
		if h.Size > maxControl {
			return fmt.Errorf("%s has %d bytes, more than %d", name, h.Size, maxControl)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		switch name {
		case "control":
			d.fields, err = parseControl(string(b))
		case "conffiles":
			for line := range strings.Lines(string(b)) {
				line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "remove-on-upgrade "))
				d.conffiles[line] = true
			}
		case "postinst":
			d.postinst = string(b)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, f := range []string{"Package", "Version", "Architecture"} {
		if d.fields[f] == "" {
			return nil, fmt.Errorf("%s: no %s field in the control file", deb, f)
		}
	}
	return d, nil
}

// debTar calls visit for each entry of one of a .deb's two archives, as dpkg-deb decompresses them.
func debTar(ctx context.Context, which, deb string, visit func(*tar.Header, io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends dpkg-deb where visit fails
	cmd := exec.CommandContext(ctx, "dpkg-deb", which, deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("reading %s: %w", deb, err)
	}
	visitErr := visitTar(out, visit)
	if visitErr != nil {
		cancel()
		out.Close() // dpkg-deb's own child writes here too, and ends with it
	}
	if err := cmd.Wait(); err != nil && visitErr == nil {
		return fmt.Errorf("reading %s: dpkg-deb: %w: %s", deb, err, bytes.TrimSpace(stderr.Bytes()))
	}
	if visitErr != nil {
		if stderr.Len() > 0 {
			return fmt.Errorf("reading %s: %w (dpkg-deb: %s)", deb, visitErr, bytes.TrimSpace(stderr.Bytes()))
		}
		return fmt.Errorf("reading %s: %w", deb, visitErr)
	}
	return nil
}

func visitTar(r io.Reader, visit func(*tar.Header, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // the padding, so that dpkg-deb does not meet a closed pipe
			return err
		}
		if err != nil {
			return err
		}
		if err := visit(h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}
