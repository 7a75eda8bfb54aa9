package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// of is the inputs of one of this image's sets.
func (b *builder) of(set string) []*lock.Input {
	return b.Lock.Of(b.Arch, b.Lock.SetFor(set, b.Variant))
}

func (b *builder) inputs() []*lock.Input { return Inputs(b.Lock, b.Arch, b.Variant) }

// Inputs are all inputs that the image of a lock is made of: its sets, its
// steps' payloads, its overlays, the files, git trees and parts of OCI images,
// sorted by kind and name. Keys, metadata, indexes of images and their SBOMs
// are for those who check the lock.
func Inputs(l *lock.Lock, arch, variant string) []*lock.Input {
	all := map[*lock.Input]bool{}
	for _, set := range []string{lock.SetTools, lock.SetInitrd, lock.SetRoot} {
		for _, in := range l.Of(arch, l.SetFor(set, variant)) {
			all[in] = true
		}
	}
	for _, p := range l.Payloads {
		for _, in := range l.Of(arch, p.Kind+":"+p.Name) {
			all[in] = true
		}
	}
	image, _ := l.ImageFor(variant)
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.Kind == lock.KindFile || isImagePart(in, arch) || in.IsGitInput() || in.Kind == lock.KindTree && slices.Contains(image.Overlay, in.Name) {
			all[in] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, c *lock.Input) int { return strings.Compare(ref(a), ref(c)) })
}

// ref is an input's name in files.json and evidence.json.
func ref(in *lock.Input) string { return in.Kind + "/" + in.Name }

// merkle reads the inputs' bytes and returns the root of the two-level tree
// over them: the SHA-256 of the lines "sha256:HEX KIND/NAME\n", sorted by
// name.
func (b *builder) merkle(ctx context.Context, inputs []*lock.Input, p *progress) (digest.Digest, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, in := range inputs {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := named(b.Store.Verify(in.SHA256), in)
			p.moved(1, "")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return digest.Digest{}, err
	}
	return InputsDigest(inputs), nil
}

// InputsDigest is the root that evidence.json has for inputs whose bytes are
// those that the lock says.
func InputsDigest(inputs []*lock.Input) digest.Digest {
	h := sha256.New()
	for _, in := range inputs {
		fmt.Fprintf(h, "%s %s\n", in.SHA256, ref(in))
	}
	return digest.Digest(h.Sum(nil))
}

// named puts the input's name into the store's errors.
func named(err error, in *lock.Input) error {
	var missing *cas.MissingError
	var damaged *cas.DamagedError
	switch {
	case errors.As(err, &missing):
		missing.Name = ref(in)
	case errors.As(err, &damaged):
		damaged.Name = ref(in)
	}
	return err
}

// open reads an input from the store; its last Read says whether the bytes
// are the locked ones.
func (b *builder) open(in *lock.Input) (io.ReadCloser, error) {
	f, err := b.Store.Open(in.SHA256)
	if err != nil {
		return nil, named(err, in)
	}
	return f, nil
}

// maxOutput is how much of each of a step's outputs is kept, in bytes.
const maxOutput = 4 << 20

// capped keeps the first maxOutput bytes written to it. The buffer is not embedded:
// its ReadFrom, which io.Copy prefers to Write, has no bound.
type capped struct {
	kept bytes.Buffer
	more int64 // bytes that were not kept
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(max(0, maxOutput-c.kept.Len()), len(p))
	c.kept.Write(p[:n])
	c.more += int64(len(p) - n)
	return len(p), nil
}

// text is what was written, and says where it is not all.
func (c *capped) text() string {
	if c.more == 0 {
		return c.kept.String()
	}
	return fmt.Sprintf("%s\n[%d more bytes were not kept]\n", c.kept.String(), c.more)
}

// run runs a step and records it. Whatever ends otherwise than by exit code 0
// is an error, and so is a network attempt unless the lock says otherwise. What
// the step prints goes to the Spec's Stdout, too. What is otherwise around the build's
// commands is around this one, but for user and umask, which are the Spec's.
func (b *builder) run(ctx context.Context, inputs []*lock.Input, s sandbox.Spec) (res *sandbox.Result, stderr string, err error) {
	var out, errs capped
	if s.Stdout == nil {
		s.Stdout = io.Discard
	}
	s.Stdout, s.Stderr = io.MultiWriter(&out, s.Stdout), &errs
	s.Timeout = b.StepTimeout
	own := s.Around
	s.Around = b.Around
	s.Around.User, s.Around.Umask = own.User, own.Umask
	s.Env = append(s.Env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.Lock.Epoch))
	if len(inputs) > 0 { // a root that is written to gets no folder for what it is not given
		given, err := b.give(inputs)
		if !b.Keep { // else with the working folder: a shell is to find them
			defer func() { err = errors.Join(err, removeAll(given.Source)) }()
		}
		if err != nil {
			return nil, "", err
		}
		s.Mounts = append(s.Mounts, given)
	}
	if b.Keep {
		b.noteSpec(s)
	}
	res, err = sandbox.Run(ctx, s)
	printed := out.text() + errs.text()
	b.log.Append(s.Name, printed)
	if err != nil {
		if errors.Is(err, sandbox.ErrTimeout) {
			err = &StepError{Step: s.Name, Reason: fmt.Sprintf("%s took more than %s", s.Args[0], b.StepTimeout), Tail: tail(printed)}
		}
		return nil, "", err
	}
	b.mu.Lock()
	b.steps[s.Name] = res.Evidence
	for _, in := range inputs {
		b.given[in] = true
	}
	b.mu.Unlock()
	if err := b.failure(&s, res, printed); err != nil {
		return nil, "", err
	}
	return res, errs.kept.String(), nil
}

// failure is what is wrong with a step that has run to its end.
func (b *builder) failure(s *sandbox.Spec, res *sandbox.Result, printed string) error {
	if a := res.Evidence.NetworkAttempts(); len(a) > 0 && !b.Lock.RecordNetwork {
		return &NetworkError{Step: s.Name, Attempts: a}
	}
	reason := ""
	switch {
	case res.Signal != "":
		reason = fmt.Sprintf("%s was ended by %s", s.Args[0], res.Signal)
	case res.ExitCode != 0:
		reason = fmt.Sprintf("%s ended with exit code %d", s.Args[0], res.ExitCode)
	default:
		return nil
	}
	return &StepError{Step: s.Name, Reason: reason + scarce(b.Out), Tail: tail(printed)}
}

// tail is the last twenty lines of s.
func tail(s string) string {
	const n = 20
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// evidence is the steps' records in the order of their names, which do not
// depend on which of them ran first.
func (b *builder) evidence() []sandbox.Evidence {
	out := []sandbox.Evidence{}
	for _, name := range slices.Sorted(maps.Keys(b.steps)) {
		out = append(out, b.steps[name])
	}
	return out
}

func (b *builder) unused(inputs []*lock.Input) []string {
	var out []string
	for _, in := range inputs {
		if !b.given[in] {
			out = append(out, ref(in))
		}
	}
	return out
}
