package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The device-mapper's interface, linux/dm-ioctl.h.
const (
	dmHeaderSize  = 312        // sizeof(struct dm_ioctl)
	dmSpecSize    = 40         // sizeof(struct dm_target_spec)
	dmNameSize    = 128        // DM_NAME_LEN
	dmTableStatus = 0xC138FD0C // DM_TABLE_STATUS: _IOWR(0xfd, 12, struct dm_ioctl)
	dmFlagTable   = 1 << 4     // DM_STATUS_TABLE_FLAG: the table instead of the state
	dmFlagFull    = 1 << 8     // DM_BUFFER_FULL_FLAG: the answer did not fit
	dmBufferSize  = 16 << 10

	// Offsets in struct dm_ioctl.
	dmDataSize    = 12
	dmDataStart   = 16
	dmTargetCount = 20
	dmFlags       = 28
	dmName        = 48
)

// Target is one line of a device-mapper table.
type Target struct {
	Type   string // "verity"
	Params string
}

// kernelTables asks the kernel for a device's table and for its state.
func kernelTables(name string) (table, status Target, err error) {
	f, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return table, status, err
	}
	defer f.Close()
	for _, q := range []struct {
		flags  uint32
		answer *Target
	}{{dmFlagTable, &table}, {0, &status}} {
		buf, err := dmRequest(name, q.flags)
		if err != nil {
			return table, status, err
		}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), dmTableStatus, uintptr(unsafe.Pointer(&buf[0])))
		if errno != 0 {
			return table, status, errno
		}
		if *q.answer, err = dmAnswer(buf); err != nil {
			return table, status, err
		}
	}
	return table, status, nil
}

// dmRequest is a struct dm_ioctl that asks for a device's table, with room
// for the answer.
func dmRequest(name string, flags uint32) ([]byte, error) {
	if name == "" || len(name) >= dmNameSize {
		return nil, fmt.Errorf("device name %q: want 1 to %d bytes", name, dmNameSize-1)
	}
	buf := make([]byte, dmBufferSize)
	ne := binary.NativeEndian
	ne.PutUint32(buf[0:], 4) // version 4.0.0
	ne.PutUint32(buf[dmDataSize:], dmBufferSize)
	ne.PutUint32(buf[dmDataStart:], dmHeaderSize)
	ne.PutUint32(buf[dmFlags:], flags)
	copy(buf[dmName:], name)
	return buf, nil
}

// dmAnswer reads the one target of a device from the kernel's answer.
func dmAnswer(buf []byte) (Target, error) {
	ne := binary.NativeEndian
	if len(buf) < dmHeaderSize {
		return Target{}, errors.New("answer is too short")
	}
	if ne.Uint32(buf[dmFlags:])&dmFlagFull != 0 {
		return Target{}, fmt.Errorf("answer is longer than %d bytes", len(buf))
	}
	if n := ne.Uint32(buf[dmTargetCount:]); n != 1 {
		return Target{}, fmt.Errorf("got %d targets, want 1", n)
	}
	start, size := uint64(ne.Uint32(buf[dmDataStart:])), uint64(ne.Uint32(buf[dmDataSize:]))
	if size > uint64(len(buf)) || start+dmSpecSize > size {
		return Target{}, errors.New("answer has no target")
	}
	spec := buf[start : start+dmSpecSize]
	return Target{Type: cString(spec[24:]), Params: cString(buf[start+dmSpecSize : size])}, nil
}

// cString is b up to its first zero byte.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// verityTable reads the hash algorithm and the root hash of a dm-verity
// table: "1 DATA HASH 4096 4096 BLOCKS START ALGORITHM ROOT SALT …", as the
// kernel's admin-guide/device-mapper/verity has it.
func verityTable(t Target) (algorithm, rootHash string, err error) {
	f := strings.Fields(t.Params)
	if t.Type != "verity" || len(f) < 10 {
		return "", "", fmt.Errorf("table %q %q: not one of dm-verity", t.Type, t.Params)
	}
	return f[7], f[8], nil
}
