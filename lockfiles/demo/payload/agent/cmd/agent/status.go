package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// pcrCount is the number of PCRs of a PC client's TPM.
const pcrCount = 24

// Machine is what a status is read from.
type Machine struct {
	FS fs.FS // the root, with /proc and /sys
	// Tables asks the device-mapper for a device's tables: of what it is made,
	// and in which state it is.
	Tables func(name string) (table, status Target, err error)
}

// Status is what the agent says of the machine.
type Status struct {
	Root Root `json:"root"`
	// PCRs of the TPM's SHA-256 bank, in lower-case hex; empty without a TPM.
	PCRs map[string]string `json:"pcrs"`
}

// Root is what / is made of.
type Root struct {
	// Verity tells whether / is on a dm-verity device.
	Verity bool `json:"verity"`
	// Overlay tells whether a writable layer lies over it.
	Overlay bool   `json:"overlay"`
	Device  string `json:"device,omitempty"` // in /sys/block: dm-0
	Name    string `json:"name,omitempty"`   // in /dev/mapper: root
	// Algorithm and RootHash are what the kernel checks every block against.
	Algorithm string `json:"algorithm,omitempty"`
	RootHash  string `json:"rootHash,omitempty"`
	// Intact is false once the kernel has met a block that does not match.
	Intact bool `json:"intact"`
	// Problem is why something above could not be told.
	Problem string `json:"problem,omitempty"`
}

// Status reads the machine's state as it is now.
func (m Machine) Status() Status {
	s := Status{PCRs: m.pcrs()}
	if err := m.root(&s.Root); err != nil {
		s.Root.Problem = err.Error()
	}
	return s
}

// Line says the status in one line.
func (s Status) Line() string {
	root := "root is verity-protected"
	switch {
	case !s.Root.Verity:
		root = "root is NOT verity-protected"
	case s.Root.RootHash == "":
		root = "root is on dm-verity with an unknown root hash"
	case !s.Root.Intact:
		root = "root is verity-protected, and DAMAGED"
	}
	pcr := s.PCRs["11"]
	if pcr == "" {
		pcr = "none"
	}
	line := fmt.Sprintf("ready, %s, pcr11=%s", root, pcr)
	if s.Root.Problem != "" {
		line += " (" + s.Root.Problem + ")"
	}
	return line
}

// pcrs reads the SHA-256 bank of the first TPM.
func (m Machine) pcrs() map[string]string {
	out := make(map[string]string)
	for i := range pcrCount {
		n := strconv.Itoa(i)
		if v, err := m.read("sys/class/tpm/tpm0/pcr-sha256/" + n); err == nil {
			out[n] = strings.ToLower(v)
		}
	}
	return out
}

// root finds the device below / and what dm-verity says of it.
func (m Machine) root(r *Root) error {
	var err error
	if r.Device, err = m.rootDevice(&r.Overlay); err != nil {
		return err
	}
	dir := path.Join("sys/block", r.Device, "dm")
	uuid, err := m.read(path.Join(dir, "uuid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an ordinary disk
	}
	if err != nil {
		return err
	}
	if r.Name, err = m.read(path.Join(dir, "name")); err != nil {
		return err
	}
	// libcryptsetup gives the devices it sets up such an id.
	if r.Verity = strings.HasPrefix(uuid, "CRYPT-VERITY-"); !r.Verity {
		return nil
	}
	table, status, err := m.Tables(r.Name)
	if err != nil {
		return fmt.Errorf("asking the device-mapper for %s: %w", r.Name, err)
	}
	if r.Algorithm, r.RootHash, err = verityTable(table); err != nil {
		return fmt.Errorf("device %s: %w", r.Name, err)
	}
	r.Intact = strings.HasPrefix(status.Params, "V")
	return nil
}

// rootDevice is the block device of the file system at /, as /sys/block has
// it. Below an overlay, whose lower layer was mounted in an initrd and cannot
// be seen any more, it is the device that is called root.
func (m Machine) rootDevice(overlay *bool) (string, error) {
	f, err := m.FS.Open("proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.SingleEntryFilter("/"))
	if err != nil {
		return "", err
	}
	if len(mounts) == 0 {
		return "", errors.New("nothing is mounted at /")
	}
	root := mounts[0]
	*overlay = root.FSType == "overlay"
	devices, err := fs.ReadDir(m.FS, "sys/block")
	if err != nil {
		return "", err
	}
	want := fmt.Sprintf("%d:%d", root.Major, root.Minor)
	for _, d := range devices {
		file, value := "dev", want
		if *overlay {
			file, value = "dm/name", "root"
		}
		if v, err := m.read(path.Join("sys/block", d.Name(), file)); err == nil && v == value {
			return d.Name(), nil
		}
	}
	return "", fmt.Errorf("no device for the %s at /", root.FSType)
}

// read is the content of a small file without its last newline.
func (m Machine) read(name string) (string, error) {
	b, err := fs.ReadFile(m.FS, name)
	return strings.TrimSpace(string(b)), err
}
