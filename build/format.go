package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"caisson/build/image/qcow2"
)

// qcow2Level is the zstd level of the qcow2's clusters.
const qcow2Level = 3

// WriteImage writes a disk of size bytes in a format of lock.Image.Output to a
// new file. The same disk gives the same bytes.
func WriteImage(ctx context.Context, name, format string, disk io.ReaderAt, size int64) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	from := readUntilDone{ctx, disk}
	switch format {
	case "qcow2":
		err = qcow2.Write(f, from, size, qcow2.Options{Compress: true, Level: qcow2Level})
	case "raw":
		err = writeSparse(f, from, size)
	default:
		err = errors.New("the format is not known")
	}
	if err != nil {
		return fmt.Errorf("writing the %s: %w", format, err)
	}
	return nil
}

// writeSparse writes a disk, and leaves a hole where it has zeros.
func writeSparse(f *os.File, disk io.ReaderAt, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	b, zeros := make([]byte, align), make([]byte, align)
	for off := int64(0); off < size; off += align {
		part := b[:min(align, size-off)]
		if n, err := disk.ReadAt(part, off); n < len(part) {
			return err
		}
		if bytes.Equal(part, zeros[:len(part)]) {
			continue
		}
		if _, err := f.WriteAt(part, off); err != nil {
			return err
		}
	}
	return nil
}

// readUntilDone is a disk that can be read until ctx is done.
type readUntilDone struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	r   io.ReaderAt
}

func (u readUntilDone) ReadAt(p []byte, off int64) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.ReadAt(p, off)
}
