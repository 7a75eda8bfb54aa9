package build

import (
	"errors"
	"os"
	"path"

	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// givenMount is where a step finds the inputs that it is given, by digest. It
// sees no others, whatever else the store has.
const givenMount = "/inputs"

// inSandbox is an input's path inside the sandbox of a step that is given it.
func inSandbox(in *lock.Input) string { return path.Join(givenMount, in.SHA256.Hex()) }

// give makes a folder of what a step is given: other names of the store's files
// where the file system and their owner allow that, else copies. The caller
// removes it.
func (b *builder) give(inputs []*lock.Input) (m sandbox.Mount, err error) {
	m = sandbox.Mount{Target: givenMount}
	if m.Source, err = os.MkdirTemp(b.work, "inputs-"); err != nil {
		return m, err
	}
	dir, err := os.Open(m.Source)
	if err != nil {
		return m, err
	}
	defer dir.Close()
	copied, seen := false, map[digest.Digest]bool{}
	for _, in := range inputs {
		if seen[in.SHA256] {
			continue
		}
		seen[in.SHA256] = true
		how, linkErr := b.Store.Link(in.SHA256, dir, in.SHA256.Hex())
		if err = errors.Join(err, named(linkErr, in)); err != nil {
			break
		}
		copied = copied || how != cas.HardLink
	}
	b.mu.Lock()
	b.copied = b.copied || copied
	b.mu.Unlock()
	return m, errors.Join(err, dir.Chmod(0o755))
}
