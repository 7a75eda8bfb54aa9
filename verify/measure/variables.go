package measure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"caisson/build/image/gpt"
)

// Sizes and constants of a firmware volume (PI 1.7, volume 3, section 3.2.1)
// and of EDK II's authenticated variable store
// (MdeModulePkg/Include/Guid/VariableFormat.h).
const (
	maxVariables   = 16 << 20 // OVMF has 528 KiB
	volumeHeader   = 56       // up to the block map
	storeHeader    = 28
	variableHeader = 60
	variableStart  = 0x55aa
	stateAdded     = 0x3f
	stateReplacing = 0x3e // valid as long as there is no other of its name
)

func authenticatedStore() gpt.GUID {
	return gpt.GUID{0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92}
}

func secureBootEnable() gpt.GUID {
	return gpt.GUID{0xc7, 0x0b, 0xa3, 0xf0, 0x08, 0xaf, 0x56, 0x45, 0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44}
}

// ReadVariables reads the settings of a machine from the file that OVMF keeps
// its variables in, OVMF_VARS.fd. Secure Boot is on where there is a PK, unless
// it was switched off.
func ReadVariables(r io.Reader) (Platform, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxVariables+1))
	if err != nil {
		return Platform{}, err
	}
	if len(b) > maxVariables {
		return Platform{}, fmt.Errorf("a file of variables of more than %d bytes", maxVariables)
	}
	store, err := findStore(b)
	if err != nil {
		return Platform{}, err
	}
	values, err := readStore(store)
	if err != nil {
		return Platform{}, err
	}
	get := func(guid gpt.GUID, name string) []byte { return values[string(guid[:])+string(wide(name))] }
	p := Platform{
		PK: get(globalVariable(), "PK"), KEK: get(globalVariable(), "KEK"),
		DB: get(securityDatabase(), "db"), DBX: get(securityDatabase(), "dbx"),
	}
	p.SecureBoot = len(p.PK) > 0 && !bytes.Equal(get(secureBootEnable(), "SecureBootEnable"), []byte{0})
	return p, nil
}

// findStore is the variables of the store that a volume starts with.
func findStore(b []byte) ([]byte, error) {
	if len(b) < volumeHeader || string(b[40:44]) != "_FVH" {
		return nil, errors.New("no firmware volume: no signature \"_FVH\" at byte 40")
	}
	at := int(binary.LittleEndian.Uint16(b[48:]))
	if len(b) < at+storeHeader {
		return nil, fmt.Errorf("firmware volume of %d bytes has a header of %d", len(b), at)
	}
	b = b[at:]
	if id := gpt.GUID(b[:16]); id != authenticatedStore() {
		return nil, fmt.Errorf("variable store of the kind %s, want %s", id, authenticatedStore())
	}
	size := binary.LittleEndian.Uint32(b[16:])
	if size < storeHeader || uint64(size) > uint64(len(b)) {
		return nil, fmt.Errorf("variable store of %d bytes in a volume that has %d for it", size, len(b))
	}
	return b[storeHeader:size], nil
}

// readStore are the variables by GUID and name, as they lie there.
func readStore(b []byte) (map[string][]byte, error) {
	values := map[string][]byte{}
	for at := 0; at+variableHeader <= len(b); at = (at + 3) &^ 3 {
		h := b[at:]
		if binary.LittleEndian.Uint16(h) != variableStart {
			break // the free space
		}
		name, data := uint64(binary.LittleEndian.Uint32(h[36:])), uint64(binary.LittleEndian.Uint32(h[40:]))
		if variableHeader+name+data > uint64(len(h)) {
			return nil, fmt.Errorf("variable at %d: name of %d and data of %d bytes, %d are left", at, name, data, len(h))
		}
		key := string(h[44:60]) + string(h[variableHeader:variableHeader+name])
		_, there := values[key]
		if state := h[2]; state == stateAdded || state == stateReplacing && !there {
			values[key] = h[variableHeader+name : variableHeader+name+data]
		}
		at += int(variableHeader + name + data)
	}
	return values, nil
}

// Owned is a machine whose owner has one certificate, in DER, as PK, KEK and db:
// with Secure Boot it starts what that has signed. Its dbx forbids the hash of
// nothing that there is.
func Owned(cert []byte) Platform {
	certs := signatureList(certX509(), owner(), cert)
	return Platform{
		SecureBoot: true, PK: certs, KEK: certs, DB: certs,
		DBX: signatureList(certSHA256(), owner(), bytes.Repeat([]byte{1}, 32)),
	}
}

// owner is who enters certificates, by a made-up id.
func owner() gpt.GUID { return gpt.GUID{0xca, 0x15} }

// attrSigned are the attributes of the keys' variables: non-volatile, for boot
// services and at run time, changed by who can sign with a time.
const attrSigned = 0x27

// Enroll writes the settings of a machine into a file of OVMF's variables that
// has none yet.
func Enroll(vars []byte, p Platform) ([]byte, error) {
	store, err := findStore(vars)
	if err != nil {
		return nil, err
	}
	values, err := readStore(store)
	if err != nil {
		return nil, err
	}
	if len(values) > 0 {
		return nil, fmt.Errorf("the file of variables has %d, want none", len(values))
	}
	out := bytes.Clone(vars)
	at := int(binary.LittleEndian.Uint16(out[48:])) + storeHeader
	end := at + len(store)
	on := byte(0)
	if p.SecureBoot {
		on = 1
	}
	for _, v := range []struct {
		efiVariable
		attributes uint32
	}{
		{efiVariable{globalVariable(), "PK", p.PK}, attrSigned},
		{efiVariable{globalVariable(), "KEK", p.KEK}, attrSigned},
		{efiVariable{securityDatabase(), "db", p.DB}, attrSigned},
		{efiVariable{securityDatabase(), "dbx", p.DBX}, attrSigned},
		{efiVariable{secureBootEnable(), "SecureBootEnable", []byte{on}}, 3},
	} {
		h := make([]byte, variableHeader)
		binary.LittleEndian.PutUint16(h, variableStart)
		h[2] = stateAdded
		binary.LittleEndian.PutUint32(h[4:], v.attributes)
		name := wide(v.name)
		binary.LittleEndian.PutUint32(h[36:], uint32(len(name)))
		binary.LittleEndian.PutUint32(h[40:], uint32(len(v.data)))
		copy(h[44:], v.guid[:])
		h = append(append(h, name...), v.data...)
		if at+len(h) > end {
			return nil, fmt.Errorf("the file of variables has no room for %s of %d bytes", v.name, len(v.data))
		}
		at += copy(out[at:], h)
		at = (at + 3) &^ 3
	}
	return out, nil
}
