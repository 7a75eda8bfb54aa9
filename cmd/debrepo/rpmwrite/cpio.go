package rpmwrite

import (
	"fmt"
	"io"
	"strings"
)

// cpioHeader is the part of a "newc" header (cpio(5)) that varies; owner, device and checksum are 0: rpm takes them from its header.
type cpioHeader struct {
	name             string
	ino, mode, nlink uint32
	mtime            uint32
	size             int64
}

func stringReader(s string) io.Reader { return strings.NewReader(s) }

// cpioEntry writes one entry: a header of 110 characters, the name and its zero byte, and the content, the last two each padded to 4 bytes.
func cpioEntry(w io.Writer, h cpioHeader, content io.Reader) error {
	name := h.name + "\x00"
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		h.ino, h.mode, 0, 0, h.nlink, h.mtime, h.size, 0, 0, 0, 0, len(name), 0)
	head += name + zeros(len(head)+len(name))
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	n, err := io.Copy(w, content)
	if err != nil {
		return err
	}
	if n != h.size {
		return fmt.Errorf("got %d bytes, want %d", n, h.size)
	}
	_, err = io.WriteString(w, zeros(int(n&3)))
	return err
}

// zeros pads n bytes to a multiple of 4.
func zeros(n int) string { return "\x00\x00\x00"[:-n&3] }
