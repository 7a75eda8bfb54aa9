// Package ovmftest makes firmware files for tests: nothing in them runs, they
// have the table and the metadata that measurements are computed from.
package ovmftest

import (
	"bytes"
	"encoding/binary"

	"caisson/build/image/gpt"
)

// Firmware is what a file says of itself. What is zero is left out.
type Firmware struct {
	Pages  int    // of 4 KiB
	Reset  uint32 // where CPUs but the first start
	Hashes uint32 // where it looks for the hashes of a kernel
	SEV    []SEV
	TDX    []TDX
}

// SEV is a section of the metadata for SEV-SNP.
type SEV struct{ Address, Size, Kind uint32 }

// TDX is a section of the metadata for TDX.
type TDX struct {
	Offset, Raw  uint32
	Address      uint64
	Size         uint64
	Kind, Extend uint32
}

// Bytes are the bytes of the file.
func (f Firmware) Bytes() []byte {
	b := make([]byte, f.Pages*4096)
	for i := range len(b) - 1024 { // something to hash
		b[i] = byte(i * (i >> 12 & 0xff))
	}
	var table bytes.Buffer
	at := len(b) - 2048
	record := func(id, letters string, count int, items any) {
		if count == 0 {
			return
		}
		var r bytes.Buffer
		write(&r, items)
		head := bytes.NewBufferString(letters)
		write(head, []uint32{uint32(16 + r.Len()), 1, uint32(count)})
		copy(b[at:], append(head.Bytes(), r.Bytes()...))
		entry(&table, id, uint32(len(b)-at))
		at += 512
	}
	record("dc886566-984a-4798-a75e-5585a7bf67cc", "ASEV", len(f.SEV), f.SEV)
	record("e47a6535-984a-4798-865e-4685a7bf8ec2", "TDVF", len(f.TDX), f.TDX)
	if f.Reset != 0 {
		entry(&table, "00f771de-1a7e-4fcb-890e-68c77e2fb44e", f.Reset)
	}
	if f.Hashes != 0 {
		entry(&table, "7255371f-3a3b-4b04-927b-1da6efa8d454", f.Hashes)
	}
	write(&table, uint16(table.Len()+18))
	write(&table, guid("96b582de-1fb2-45f7-baea-a366c55a082d"))
	copy(b[len(b)-32-table.Len():], table.Bytes())
	return b
}

// Variables are size bytes of a firmware's variables, of which there is none.
func Variables(size int) []byte {
	const header = 72
	b := bytes.Repeat([]byte{0xff}, size)
	clear(b[:header+28])
	copy(b[40:], "_FVH")
	b[48] = header
	id := guid("aaf32c78-947b-439a-a180-2e144ec37792") // authenticated variables
	copy(b[header:], id[:])
	binary.LittleEndian.PutUint32(b[header+16:], uint32(size-header))
	return b
}

func entry(w *bytes.Buffer, id string, v uint32) {
	write(w, v)
	write(w, uint16(4+18))
	write(w, guid(id))
}

func guid(id string) gpt.GUID {
	g, err := gpt.ParseGUID(id)
	if err != nil {
		panic(err) // a constant of this package
	}
	return g
}

func write(w *bytes.Buffer, v any) {
	if err := binary.Write(w, binary.LittleEndian, v); err != nil {
		panic(err) // the types are of a fixed size
	}
}
