package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"caisson/build/image/fat"
	"caisson/build/image/uki"
)

// addAddon makes the addon and puts it into the EFI system partition.
func (s *sealing) addAddon() error {
	words := append([]string{"roothash=" + s.result.RootHash}, strings.Fields(s.Cmdline)...)
	if slices.ContainsFunc(words[1:], isRootHash) {
		return fmt.Errorf("what the addon is to say, %q, has a root hash already", s.Cmdline)
	}
	if s.kernel != nil {
		if a := s.kernel.rootArgument(); a != "" && !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "root=") }) {
			words = append(words, a)
			s.warn(fmt.Sprintf("%s names another root in its command line %q: the addon says %s behind it", s.kernel.path, s.kernel.cmdline, a))
		}
	}
	s.result.Cmdline = strings.Join(words, " ")
	if s.NoAddon {
		return nil
	}
	b, err := s.makeAddon()
	if err != nil {
		return err
	}
	if s.Sign != nil {
		if b, err = s.Sign(b); err != nil {
			return fmt.Errorf("signing the addon: %w", err)
		}
	}
	s.say("adding %s", s.addon)
	err = fat.Add(s.espDisk(), s.esp.Size(), fat.File{Path: s.addon, Size: int64(len(b)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}, s.Time)
	if err != nil {
		return addonError(s.addon, err)
	}
	hash, err := uki.Authenticode(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	s.result.Addon = &Addon{Path: s.addon, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:]), Authenticode: hex.EncodeToString(hash[:])}
	if s.kernel != nil {
		s.result.Addon.Kernel = s.kernel.path
	}
	return nil
}

func (s *sealing) makeAddon() ([]byte, error) {
	stub := s.AddonStub
	if stub == nil {
		var err error
		if stub, err = uki.AddonStub(s.arch.machine); err != nil {
			return nil, err
		}
	}
	im, err := uki.Read(bytes.NewReader(stub), int64(len(stub)))
	if err != nil {
		return nil, fmt.Errorf("reading the addon's stub: %w", err)
	}
	if im.Machine != s.arch.machine {
		return nil, fmt.Errorf("the addon's stub is for machine type %#x, want %#x", im.Machine, s.arch.machine)
	}
	return uki.Addon(stub, uki.AddonOptions{Cmdline: s.result.Cmdline})
}
