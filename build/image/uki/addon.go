package uki

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// sbatHeader is the first line of every .sbat section: the version of the
// format (shim's SBAT.md).
const sbatHeader = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"

// AddonSBAT is the revocation level of an addon that has no other, as ukify
// writes it: shim refuses programs without one.
const AddonSBAT = "uki-addon,1,UKI Addon,addon,1,https://www.freedesktop.org/software/systemd/man/latest/systemd-stub.html\n"

const (
	maxAddonStub = 1 << 20  // systemd's have 2 KiB
	maxAddonText = 64 << 10 // more than any kernel takes
)

// AddonOptions are what an addon has beside systemd's stub for addons.
type AddonOptions struct {
	// Cmdline is added to the command line of the UKI.
	Cmdline string
	// Uname limits the addon to UKIs whose section .uname is the same; empty
	// for no limit.
	Uname string
	// SBAT are lines of revocation levels; AddonSBAT if empty.
	SBAT string
}

// Addon makes an addon for a UKI (systemd-stub(7), "Companion Files"): the
// stub with .cmdline, .uname and .sbat added. The stub is systemd's for addons
// (addonx64.efi.stub), or AddonStub's, of the UKI's machine. The same stub and options give
// the same bytes.
func Addon(stub []byte, o AddonOptions) ([]byte, error) {
	if len(stub) > maxAddonStub {
		return nil, fmt.Errorf("reading the addon's stub: %d bytes, more than %d", len(stub), maxAddonStub)
	}
	im, err := Read(bytes.NewReader(stub), int64(len(stub)))
	if err != nil {
		return nil, fmt.Errorf("reading the addon's stub: %w", err)
	}
	if name, _, err := im.LoaderInfo(); err != nil {
		return nil, fmt.Errorf("reading the addon's stub: %w", err)
	} else if !IsAddon(name) {
		return nil, fmt.Errorf("reading the addon's stub: its .sdmagic says %q, want %q", name, addonOfSystemd)
	}
	if strings.TrimSpace(o.Cmdline) == "" {
		return nil, errors.New("an addon without a command line")
	}
	var sections []Section
	for _, s := range []struct{ name, text string }{{".cmdline", o.Cmdline}, {".uname", o.Uname}, {".sbat", sbat(o.SBAT)}} {
		switch {
		case s.text == "":
			continue
		case len(s.text) > maxAddonText || strings.ContainsRune(s.text, 0):
			return nil, fmt.Errorf("section %q of %d bytes: want text of at most %d", s.name, len(s.text), maxAddonText)
		}
		sections = append(sections, TextSection(s.name, s.text))
	}
	var b bytes.Buffer
	if _, err := Write(&b, bytes.NewReader(stub), int64(len(stub)), sections); err != nil {
		return nil, fmt.Errorf("writing an addon: %w", err)
	}
	return b.Bytes(), nil
}

// sbat is a whole section of an addon.
func sbat(lines string) string {
	if lines == "" {
		lines = AddonSBAT
	}
	if strings.HasPrefix(lines, "sbat,") {
		return lines
	}
	return sbatHeader + lines
}

// TextSection is a section of text.
func TextSection(name, text string) Section {
	return Section{Name: name, Size: int64(len(text)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(text)), nil
	}}
}
