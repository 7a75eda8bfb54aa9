package lock

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"caisson/lock/gittree"
	"caisson/lock/internal/sshsig"
)

// gitObject is a commit or tag object of a repository's file.
type gitObject struct {
	what               string // as Verified.What has it
	payload, signature []byte
	at                 time.Time
}

// GitSignatureError says that a git repository is not signed as the manifest
// wants it.
type GitSignatureError struct {
	Commit string
	Err    error
}

func (e *GitSignatureError) Error() string { return fmt.Sprintf("verifying %s: %v", e.Commit, e.Err) }

// Unwrap returns the reason.
func (e *GitSignatureError) Unwrap() error { return e.Err }

// verifyGit checks that the annotated tag or, where that is not signed or
// there is none, the commit is signed by a key of a file. A signed tag has to
// be the one that was asked for: it could be one of another name.
func (r *resolver) verifyGit(ctx context.Context, in *Input, key string) (*Verified, error) {
	keys, err := r.readTrustedKey(key)
	if err != nil {
		return nil, err
	}
	// The store has it, but where the lock there was is believed.
	blob, err := r.Fetch(ctx, Want{
		Kind: KindGit, URL: in.URL, Ref: cmp.Or(in.Git.Tag, in.Git.Commit), Submodules: in.Git.Submodules, Auth: in.Auth, SHA256: in.SHA256, Size: in.Size,
	})
	if err != nil {
		return nil, err
	}
	v, err := r.checkSigned(in, blob.Path, key, keys)
	if err != nil {
		return nil, &GitSignatureError{in.Git.Commit, err}
	}
	return v, nil
}

// checkSigned checks the signature of a repository's file; keys are the
// contents of the file called key.
func (r *resolver) checkSigned(in *Input, file, key string, keys []byte) (*Verified, error) {
	o, info, err := readSigned(file)
	if err != nil {
		return nil, err
	}
	if info.Commit != in.Git.Commit {
		return nil, fmt.Errorf("got the commit %s", info.Commit)
	}
	if name := shortRef(in.Git.Ref); o.what == "tag" && !gittree.IsID(name) && name != info.TagName {
		return nil, fmt.Errorf("the signed tag calls itself %q, and %q was asked for", info.TagName, name)
	}
	if sshsig.IsSignature(o.signature) {
		trusted, err := sshsig.ParseKeys(keys)
		if err != nil {
			return nil, fmt.Errorf("the %s is signed by an SSH key; reading %s: %w", o.what, key, err)
		}
		by, err := trusted.Check(o.payload, o.signature, "git", o.at)
		if err != nil {
			return nil, fmt.Errorf("the %s: %w", o.what, err)
		}
		return &Verified{What: o.what, Key: by.Fingerprint()}, nil
	}
	prints, err := r.Fingerprints(keys)
	if err != nil {
		return nil, fmt.Errorf("the %s is signed by an OpenPGP key; reading %s: %w", o.what, key, err)
	}
	if err := r.CheckSignature([][]byte{keys}, bytes.NewReader(o.payload), bytes.NewReader(o.signature)); err != nil {
		return nil, fmt.Errorf("the %s: %w", o.what, err)
	}
	return &Verified{What: o.what, Key: strings.Join(prints, ",")}, nil
}

// shortRef is a tag or branch by its own name.
func shortRef(ref string) string {
	for _, prefix := range []string{"refs/tags/", "tags/"} {
		if name, ok := strings.CutPrefix(ref, prefix); ok {
			return name
		}
	}
	return ref
}

// readSigned finds the signature of a repository's file.
func readSigned(name string) (*gitObject, *gittree.Info, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	found := map[string]*gitObject{}
	info, err := gittree.Read(f, func(e gittree.File, r io.Reader) error {
		if e.Module != "" || e.Object == "" || found[e.Object] != nil {
			return nil
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		o := &gitObject{what: e.Object}
		o.payload, o.signature = gittree.Signed(raw, e.Object == "tag")
		found[e.Object] = o
		if len(o.signature) > 0 {
			o.at, err = gittree.Time(raw)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for _, what := range []string{"tag", "commit"} {
		o := found[what]
		switch {
		case o == nil || len(o.signature) == 0:
		case bytes.HasPrefix(o.signature, []byte("-----BEGIN SIGNED MESSAGE-----")):
			return nil, nil, fmt.Errorf("the %s is signed by a certificate (S/MIME or gitsign), which is not supported for git; want an OpenPGP or SSH signature", what)
		default:
			return o, info, nil
		}
	}
	return nil, nil, errors.New("neither the commit nor a tag is signed")
}
