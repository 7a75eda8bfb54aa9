package main

import (
	"caisson/attest"
	"caisson/lock"
	"caisson/verify"
)

// rest adds to a verification what its verdict rests on beside the image: the
// statements of others.
func (o *verifyOptions) rest(_ *ui, _ *lock.Lock, _ string, opts *verify.Options) error {
	keys, err := readKeys(o.trust)
	if err != nil {
		return err
	}
	return o.askOthers(opts, o.rebuilders, keys)
}

// askOthers adds the opinions of rebuilders.
func (o *verifyOptions) askOthers(opts *verify.Options, want int, keys []attest.Key) error {
	if want == 0 {
		return nil
	}
	own := ""
	if o.key != "" {
		own = o.signer.Hint()
	}
	opinions, err := o.opinions(keys, own)
	opts.Rebuilders = &verify.Rebuilders{Want: want, Opinions: opinions}
	return err
}
