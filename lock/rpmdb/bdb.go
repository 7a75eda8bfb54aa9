package rpmdb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Numbers of Berkeley DB's hash files (libdb's src/dbinc/db_page.h).
const (
	bdbHashMagic    = 0x061561
	bdbPageHeader   = 26
	bdbUnsortedHash = 2 // pages of hashes, before 4.6 and since
	bdbOverflow     = 7
	bdbHashMeta     = 8
	bdbHash         = 13
	bdbKeyData      = 1 // items: in the page, or on pages of their own
	bdbOffPage      = 3
	bdbOffPageSize  = 12
)

// bdbFile is a hash file of Berkeley DB. Its numbers are in the byte order of
// the machine that wrote it.
type bdbFile struct {
	r     io.ReaderAt
	order binary.ByteOrder
	page  int64 // bytes
	last  int64 // number of the last page
	left  int64 // overflow pages that may still be read: each is in one item
}

// readBDB reads the packages of a hash file, in the order of its pages.
func readBDB(ctx context.Context, r io.ReaderAt, size int64, f visit) error {
	d, err := openBDB(r, size)
	if err != nil {
		return err
	}
	page := make([]byte, d.page)
	for n := int64(1); n <= d.last; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := r.ReadAt(page, n*d.page); err != nil {
			return err
		}
		if t := page[25]; t != bdbHash && t != bdbUnsortedHash {
			continue
		}
		if err := d.items(page, f); err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
	}
	return nil
}

func openBDB(r io.ReaderAt, size int64) (*bdbFile, error) {
	meta := make([]byte, 512)
	if _, err := r.ReadAt(meta, 0); err != nil {
		return nil, fmt.Errorf("no rpm database: %w", err)
	}
	d := &bdbFile{r: r, order: binary.LittleEndian}
	if d.order.Uint32(meta[12:]) != bdbHashMagic {
		d.order = binary.BigEndian
	}
	d.page, d.last = int64(d.order.Uint32(meta[20:])), int64(d.order.Uint32(meta[32:]))
	switch {
	case d.order.Uint32(meta[12:]) != bdbHashMagic || meta[25] != bdbHashMeta:
		return nil, fmt.Errorf("no rpm database: it begins with %x", meta[:16])
	case meta[24] != 0:
		return nil, errors.New("an encrypted database")
	case d.page < 512 || d.page > 64<<10 || d.page&(d.page-1) != 0:
		return nil, fmt.Errorf("pages of %d bytes", d.page)
	case (d.last+1)*d.page > size:
		return nil, fmt.Errorf("%d pages of %d bytes in a file of %d", d.last+1, d.page, size)
	}
	d.left = d.last
	return d, nil
}

// items gives the packages of a page of a hash to f. Keys and values take
// turns. The key of a package is its number; what has the key 0 is the next
// number that is free.
func (d *bdbFile) items(page []byte, f visit) error {
	n := int(d.order.Uint16(page[20:]))
	if n%2 != 0 || bdbPageHeader+2*n > len(page) {
		return fmt.Errorf("%d items", n)
	}
	offset := func(i int) int { return int(d.order.Uint16(page[bdbPageHeader+2*i:])) }
	end := len(page) // items lie from the end of the page to its beginning
	for i := 0; i < n; i += 2 {
		key, value := offset(i), offset(i+1)
		if value < bdbPageHeader+2*n || key <= value || key >= end {
			return fmt.Errorf("item %d is from %d to %d of %d", i, value, key, end)
		}
		k, v := page[key:end], page[value:key]
		end = value
		if k[0] != bdbKeyData || len(k) != 5 {
			return fmt.Errorf("item %d has a key of type %d and %d bytes", i, k[0], len(k)-1)
		}
		number := d.order.Uint32(k[1:])
		if number == 0 {
			continue
		}
		if v[0] == bdbKeyData {
			v = v[1:]
		} else {
			var err error
			if v, err = d.offPage(v); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
		}
		if err := f(number, v); err != nil {
			return err
		}
	}
	return nil
}

// offPage reads an item that is on pages of its own.
func (d *bdbFile) offPage(item []byte) ([]byte, error) {
	if item[0] != bdbOffPage || len(item) < bdbOffPageSize {
		return nil, fmt.Errorf("an item of type %d and %d bytes", item[0], len(item))
	}
	next, length := int64(d.order.Uint32(item[4:])), int64(d.order.Uint32(item[8:]))
	if length > maxHeader || length > (d.last+1)*d.page {
		return nil, fmt.Errorf("a header of %d bytes", length)
	}
	out := make([]byte, 0, length)
	page := make([]byte, d.page)
	for next != 0 {
		if d.left--; next > d.last || d.left < 0 {
			return nil, fmt.Errorf("page %d of %d, or one page in two items", next, d.last)
		}
		if _, err := d.r.ReadAt(page, next*d.page); err != nil {
			return nil, err
		}
		n := int(d.order.Uint16(page[22:])) // of an overflow page: the bytes on it
		if page[25] != bdbOverflow || bdbPageHeader+n > len(page) || len(out)+n > int(length) {
			return nil, fmt.Errorf("page %d: type %d with %d bytes", next, page[25], n)
		}
		out = append(out, page[bdbPageHeader:][:n]...)
		next = int64(d.order.Uint32(page[16:]))
	}
	if int64(len(out)) != length {
		return nil, fmt.Errorf("got %d bytes, want %d", len(out), length)
	}
	return out, nil
}
