package build

import (
	"context"
	"strings"
	"testing"

	"caisson/lock"
)

// testGiven looks around in steps: what the store has and the lock does not give
// a step is not there to be found.
func testGiven(t *testing.T, d *distro) {
	t.Parallel()
	const secret = "in the store and not in the lock"
	d = d.with(func(d *distro) {
		other, _, err := d.store.Put(strings.NewReader(secret), [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		sum, size, err := d.store.Put(strings.NewReader("what is given"), [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		d.lock.Inputs = append(d.lock.Inputs, lock.Input{Kind: lock.KindFile, Name: "given.txt", URL: "given.txt", SHA256: sum, Size: size})
		d.lock.Steps = []lock.Step{{Run: `[ "$(ls /inputs)" = ` + sum.Hex() + ` ] && [ "$(cat $IN/given.txt)" = "what is given" ]` +
			` && ! grep -q . /inputs/../*/` + other.Hex() + ` /proc/self/root/*/sha256/*/* 2> /dev/null` +
			` && ! (echo more > /inputs/` + sum.Hex() + `) 2> /dev/null && ! rm -f /inputs/* 2> /dev/null`}}
	})
	if _, err := Build(context.Background(), d.options(t.TempDir())); err != nil {
		t.Error(err)
	}
}
