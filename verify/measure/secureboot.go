package measure

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"caisson/build/image/authenticode"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// Platform is what of a machine's firmware settings is measured. The zero
// value is a machine without Secure Boot and without keys.
type Platform struct {
	// SecureBoot tells whether the firmware starts only what db allows.
	SecureBoot bool
	// The contents of the variables: EFI_SIGNATURE_LISTs (UEFI 2.10, section
	// 32.4.1), without the authentication header that an update has.
	PK, KEK, DB, DBX []byte
}

// efiVariable is a variable of the firmware.
type efiVariable struct {
	guid gpt.GUID
	name string
	data []byte
}

// EFI_GLOBAL_VARIABLE and EFI_IMAGE_SECURITY_DATABASE_GUID.
func globalVariable() gpt.GUID {
	return gpt.GUID{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
}

func securityDatabase() gpt.GUID {
	return gpt.GUID{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
}

// certX509 is EFI_CERT_X509_GUID, the type of a list of certificates.
func certX509() gpt.GUID {
	return gpt.GUID{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
}

// variables are those that the firmware measures before it starts anything.
func (p Platform) variables() []efiVariable {
	on := byte(0)
	if p.SecureBoot {
		on = 1
	}
	return []efiVariable{
		{globalVariable(), "SecureBoot", []byte{on}},
		{globalVariable(), "PK", p.PK},
		{globalVariable(), "KEK", p.KEK},
		{securityDatabase(), "db", p.DB},
		{securityDatabase(), "dbx", p.DBX},
	}
}

// signatureList is an EFI_SIGNATURE_LIST with one entry.
func signatureList(kind, owner gpt.GUID, data []byte) []byte {
	b := append([]byte(nil), kind[:]...)
	for _, n := range []int{28 + 16 + len(data), 0, 16 + len(data)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, owner[:]...), data...)
}

// Sizes of EFI_SIGNATURE_LIST: the fields before its entries, and the owner in
// front of each.
const (
	listHeader  = 28
	ownerHeader = 16
)

// certSHA256 is EFI_CERT_SHA256_GUID, the type of a list of image hashes.
func certSHA256() gpt.GUID {
	return gpt.GUID{0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28}
}

// entry is an EFI_SIGNATURE_DATA, with the type of its list.
type entry struct {
	kind gpt.GUID
	raw  []byte // owner and data
}

func (e entry) data() []byte { return e.raw[ownerHeader:] }

// readLists reads the entries of signature lists.
func readLists(b []byte) ([]entry, error) {
	var all []entry
	for len(b) > 0 {
		if len(b) < listHeader {
			return nil, fmt.Errorf("%d bytes behind the last signature list", len(b))
		}
		size, head, each := binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:]), binary.LittleEndian.Uint32(b[24:])
		if uint64(size) > uint64(len(b)) || uint64(size) < listHeader+uint64(head) || each < ownerHeader || (size-listHeader-head)%each != 0 {
			return nil, fmt.Errorf("signature list of %d bytes with a header of %d and entries of %d, in %d bytes", size, head, each, len(b))
		}
		for rest := b[listHeader+head : size]; len(rest) > 0; rest = rest[each:] {
			all = append(all, entry{gpt.GUID(b[:16]), rest[:each]})
		}
		b = b[size:]
	}
	return all, nil
}

// authorize checks that the firmware starts an image, and adds the event by
// which it records what allowed that, once for each entry of db.
func (b *boot) authorize(im *image) error {
	if !b.platform.SecureBoot {
		return nil
	}
	db, err := readLists(b.platform.DB)
	if err != nil {
		return fmt.Errorf("db: %w", err)
	}
	dbx, err := readLists(b.platform.DBX)
	if err != nil {
		return fmt.Errorf("dbx: %w", err)
	}
	if sbat, err := im.Section(".sbat"); err != nil {
		return err
	} else if sbat == nil && b.shim {
		return errors.New("no section \".sbat\": shim does not start it")
	}
	hash := im.hash[0]
	signatures, err := im.signatures(hash)
	if err != nil {
		return err
	}
	if len(signatures) > 1 && b.shim {
		return fmt.Errorf("%d signatures: by which of them shim starts it is not known", len(signatures))
	}
	for _, e := range dbx {
		if err := forbidden(e, hash, signatures); err != nil {
			return err
		}
	}
	e, err := allowing(db, hash, signatures)
	switch {
	case err != nil:
		return fmt.Errorf("db: %w", err)
	case e == nil && b.shim:
		return errors.New("nothing in db allows it: what shim allows by its own certificate or the machine owner's is not supported")
	case e == nil:
		return errors.New("nothing in db allows it: the firmware does not start it")
	case b.shim && e.kind == certSHA256():
		return errors.New("db allows it by its hash: what shim measures then is not known")
	}
	b.record(*e)
	return nil
}

// signatures are the image's, in order.
func (im *image) signatures(hash []byte) ([]*authenticode.Signature, error) {
	ders, err := uki.Signatures(im.file, im.file.Size())
	if err != nil {
		return nil, err
	}
	var all []*authenticode.Signature
	for _, der := range ders {
		s, err := authenticode.Open(der, hash)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// allowing is the entry of db that allows an image; nil if none does. Firmware
// goes through the signatures, and for each through db's certificates and then
// its hashes (EDK II, DxeImageVerificationHandler): the first that it finds is
// the one that it measures.
func allowing(db []entry, hash []byte, signatures []*authenticode.Signature) (*entry, error) {
	var byHash *entry
	for i, e := range db {
		if e.kind == certSHA256() && bytes.Equal(e.data(), hash) {
			byHash = &db[i]
			break
		}
	}
	for _, s := range signatures {
		for i, e := range db {
			if e.kind != certX509() {
				continue
			}
			anchor, err := x509.ParseCertificate(e.data())
			if err != nil {
				return nil, err
			}
			if s.TrustedBy(anchor) {
				return &db[i], nil
			}
		}
		if byHash != nil {
			break
		}
	}
	return byHash, nil
}

// record adds the event for an entry of db, unless there is one already.
func (b *boot) record(e entry) {
	if b.measured[string(e.raw)] {
		return
	}
	b.measured[string(e.raw)] = true
	b.add(7, evAuthority, "db", variable(securityDatabase(), "db", e.raw))
}

// forbidden is the error where an entry of dbx forbids an image: its hash, or
// any of its signatures.
func forbidden(e entry, hash []byte, signatures []*authenticode.Signature) error {
	switch e.kind {
	case certSHA256():
		if bytes.Equal(e.data(), hash) {
			return fmt.Errorf("dbx forbids the image hash %x", hash)
		}
		return nil
	case certX509():
		c, err := x509.ParseCertificate(e.data())
		if err != nil {
			return fmt.Errorf("dbx: %w", err)
		}
		for _, s := range signatures {
			if s.TrustedBy(c) {
				return fmt.Errorf("dbx forbids the certificate of %q", c.Subject)
			}
		}
		return nil
	case revokedSHA256():
		for _, s := range signatures {
			for _, c := range append([]*x509.Certificate{s.Signer}, s.Others...) {
				if tbs := sha256.Sum256(c.RawTBSCertificate); len(e.data()) >= len(tbs) && bytes.Equal(e.data()[:len(tbs)], tbs[:]) {
					return fmt.Errorf("dbx forbids the certificate of %q", c.Subject)
				}
			}
		}
		return nil
	}
	return fmt.Errorf("dbx: entries of the type %s are not supported", e.kind)
}

// revokedSHA256 is EFI_CERT_X509_SHA256_GUID, the type of a list of hashes of
// certificates.
func revokedSHA256() gpt.GUID {
	return gpt.GUID{0x92, 0xa4, 0xd2, 0x3b, 0xc0, 0x96, 0x79, 0x40, 0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed}
}
