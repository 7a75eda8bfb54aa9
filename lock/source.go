package lock

import (
	"context"
	"errors"

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
	// Mirrors are other addresses of the same file, and Auth is how to log in
	// at all of them.
	Mirrors []string
	Auth    *Auth
	// ISO is the digest of an ISO 9660 image that the store has: the URL is
	// then the path of a file in it, "BaseOS/repodata/repomd.xml".
	ISO digest.Digest
	// Ref and Submodules are for KindGit: what of the repository at URL is
	// wanted, a tag, a branch or a commit. What comes is in the form of
	// package gittree, which names the commit.
	Ref        string
	Submodules bool
	// MediaTypes are those that a registry may answer with, for a manifest of
	// KindOCI whose address ends in a tag. The answer is the manifest.
	MediaTypes []string
	// Max is the most bytes that may come, where the size is not known; 0
	// for no limit but the transport's.
	Max int64
	// An address without a digest is asked again every time, conditionally
	// where an earlier answer is in the store.
	//
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

// ErrMismatch is what the error of a Fetch is where an address exists and does
// not have the file that was wanted: another digest or size.
var ErrMismatch = errors.New("not the file that is wanted")

// Fetch brings a file into the store. Resolve is given one because the
// network belongs to the stage after it. An address that does not exist gives
// an error that is fs.ErrNotExist, one with another file an error that is
// ErrMismatch.
type Fetch func(ctx context.Context, w Want) (Blob, error)
