package lock

import (
	"context"

	"caisson/lock/digest"
)

// Want is a file that Resolve has to see before it can pin it.
type Want struct {
	Kind string // as Input.Kind; KindSumDB for the Go checksum database
	// URL as Input.URL is, but absolute for a repository's files.
	URL      string
	Registry string        // for a crate
	SHA256   digest.Digest // zero where not known beforehand
	Size     int64         // bytes; 0 where not known
	// Immutable says that this address always has the same bytes, so that a
	// copy fetched earlier will do.
	Immutable bool
}

// KindSumDB is a Want for a path of the Go checksum database, such as
// "/lookup/golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64".
const KindSumDB = "sumdb"

// Blob is a fetched file: it lies in the store, under its digest.
type Blob struct {
	Path   string
	SHA256 digest.Digest
	Size   int64
}

// Fetch brings a file into the store. Resolve is given one because the
// network belongs to the stage after it. An address that does not exist gives
// an error that is fs.ErrNotExist.
type Fetch func(ctx context.Context, w Want) (Blob, error)
