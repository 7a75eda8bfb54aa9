package main

import (
	"context"
	"fmt"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// replayAnswer is what --replay --json prints.
type replayAnswer struct {
	Lock digest.Digest `json:"lock"`
	Same bool          `json:"same"`
	*lock.ReplayResult
}

// replayLock makes the choice of the lock's packages again, from the metadata
// that the lock pins and the store has.
func replayLock(ctx context.Context, ui *ui, o *lockOptions) error {
	l, b, err := o.readLock()
	if err != nil {
		return err
	}
	st, err := o.layered()
	if err != nil {
		return err
	}
	res, err := lock.Replay(ctx, l, verifiedPath(st))
	if err != nil {
		return fmt.Errorf("%s: %w", o.out, err)
	}
	same := len(res.Different) == 0
	if o.json {
		if err := ui.json(replayAnswer{digest.Of(b), same, res}); err != nil {
			return err
		}
	} else {
		for _, d := range res.Kept {
			ui.print("kept %s", d)
		}
		for _, d := range res.Different {
			ui.print("different %s", d)
		}
	}
	if !same {
		return &codeError{fmt.Errorf("%s: its metadata gives another choice: %s", o.out, count(len(res.Different), "difference")),
			exitDifferent, "the lock was not made from that metadata, was edited, or is of another Caisson: have it made again with `caisson lock --update`"}
	}
	if o.json {
		return nil
	}
	kept := ""
	if n := len(res.Kept); n > 0 {
		kept = fmt.Sprintf("; %s kept from an earlier lock", count(n, "package"))
	}
	ui.stage("%s: the same choice again, %s%s", o.out, count(res.Packages, "package"), kept)
	return nil
}

// verifiedPath gives the path of a file of the store once its bytes have been
// compared with its digest.
func verifiedPath(st *cas.Store) func(digest.Digest) (string, error) {
	return func(d digest.Digest) (string, error) {
		if err := st.Verify(d); err != nil {
			return "", err
		}
		return st.Path(d), nil
	}
}
