package gitfetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"caisson/lock/gittree"
)

// server is what a server says of itself (gitprotocol-v2, "Capability
// Advertisement"; gitprotocol-pack, "Reference Discovery").
type server struct {
	v2     bool
	caps   map[string]string // with what follows "="
	hexLen int               // of an object's id
	base   string            // where HTTP has led to; empty before
}

const (
	maxRefs = 32 << 20 // bytes of refs, or of what a server says of itself
	maxCaps = 1000
)

// supports tells what a server can be asked for.
func (s *server) supports(name string) bool {
	if _, ok := s.caps[name]; ok || !s.v2 {
		return ok
	}
	for f := range strings.FieldsSeq(s.caps["fetch"]) {
		if f == name {
			return true
		}
	}
	return false
}

// givesAny tells whether the server gives commits that it does not name.
func (s *server) givesAny() bool {
	return s.v2 || s.supports("allow-reachable-sha1-in-want") || s.supports("allow-tip-sha1-in-want") || s.supports("allow-any-sha1-in-want")
}

// cap keeps what a server says that it can do.
func (s *server) cap(word string) error {
	if len(s.caps) >= maxCaps {
		return errors.New("the server can do too much")
	}
	name, value, _ := strings.Cut(word, "=")
	s.caps[name] = value
	if name != "object-format" {
		return nil
	}
	switch value {
	case "sha1":
		s.hexLen = 40
	case "sha256":
		s.hexLen = 64
	default:
		return fmt.Errorf("the repository has ids of the hash %.20q, want sha1 or sha256", value)
	}
	return nil
}

// greeting reads what a server says first: of version 0 that is all refs.
func (r *Remote) greeting(in io.Reader) error {
	p := newPktReader(in)
	r.server = server{caps: make(map[string]string), hexLen: 40, base: r.base}
	line, err := p.text()
	if strings.HasPrefix(line, "# service=") { // by HTTP
		if _, err = p.next(); !errors.Is(err, errFlush) {
			return errors.New("the server does not speak git's protocol")
		}
		line, err = p.text()
	}
	switch {
	case errors.Is(err, errFlush): // version 0, and nothing in it
		r.refs = newRefs()
		r.refs.all = true
		return nil
	case err != nil:
		return noEOF(err)
	case line == "version 2":
		r.v2 = true
		return r.capabilities(p)
	case line == "version 1":
		if line, err = p.text(); err != nil {
			return noEOF(err)
		}
	}
	return r.advertised(p, line)
}

// capabilities reads those of version 2.
func (r *Remote) capabilities(p *pktReader) error {
	for {
		line, err := p.text()
		if errors.Is(err, errFlush) {
			return nil
		}
		if err == nil {
			err = r.cap(line)
		}
		if err != nil {
			return noEOF(err)
		}
	}
}

// advertised reads the refs of version 0, of which the first has come.
func (r *Remote) advertised(p *pktReader, line string) error {
	ref, caps, _ := strings.Cut(line, "\x00")
	for word := range strings.FieldsSeq(caps) {
		if err := r.cap(word); err != nil {
			return err
		}
	}
	r.refs = newRefs()
	r.refs.all = true
	for {
		id, name, _ := strings.Cut(ref, " ")
		if id != "shallow" {
			if err := r.ref(id, name); err != nil {
				return err
			}
		}
		var err error
		if ref, err = p.text(); errors.Is(err, errFlush) {
			return nil
		} else if err != nil {
			return noEOF(err)
		}
	}
}

// ref keeps a ref.
func (r *Remote) ref(id, name string) error {
	if !gittree.IsID(id) || len(id) != r.hexLen {
		return fmt.Errorf("the server names %.80q by %.80q, which is no id of %d digits", name, id, r.hexLen)
	}
	tag, peeled := strings.CutSuffix(name, "^{}")
	switch {
	case peeled:
		r.refs.peeled[tag] = id
	case name == "HEAD":
		r.refs.head = id
	case strings.HasPrefix(name, "refs/"):
		r.refs.ids[name] = id
	}
	return nil
}

// list asks for refs, all branches and tags where none is named.
func (r *Remote) list(ctx context.Context, names []string) error {
	return r.session(ctx, func(ctx context.Context, l link, _ *watch) error {
		if err := r.greet(ctx, l); err != nil || !r.v2 {
			return err
		}
		prefixes := []string{"HEAD", "refs/heads/", "refs/tags/"}
		r.refs = newRefs()
		if r.refs.all = len(names) == 0; !r.refs.all {
			if prefixes = wanted(names); len(prefixes) == 0 {
				return nil
			}
		}
		return r.listV2(ctx, l, prefixes)
	})
}

// wanted are what refs may be called in full.
func wanted(names []string) []string {
	var out []string
	for _, n := range names {
		switch {
		case isHEAD(n):
			out = append(out, "HEAD")
		case !gittree.IsID(n):
			out = append(out, places(n)...)
		}
	}
	return out
}

// greet reads what a server says first.
func (r *Remote) greet(ctx context.Context, l link) error {
	in, err := l.greet(ctx)
	if err != nil {
		return err
	}
	defer in.Close()
	return r.greeting(in)
}

// listV2 asks for the refs whose names begin so (gitprotocol-v2, "ls-refs").
func (r *Remote) listV2(ctx context.Context, l link, prefixes []string) error {
	args := []string{"peel"}
	for _, p := range prefixes {
		args = append(args, "ref-prefix "+p)
	}
	in, err := l.ask(ctx, r.command("ls-refs", args))
	if err != nil {
		return err
	}
	defer in.Close()
	p := newPktReader(io.LimitReader(in, maxRefs))
	for {
		line, err := p.text()
		if errors.Is(err, errFlush) {
			return nil
		}
		if err != nil {
			return noEOF(err)
		}
		f := strings.Split(line, " ")
		if len(f) < 2 || f[0] == "unborn" {
			continue
		}
		if err := r.ref(f[0], f[1]); err != nil {
			return err
		}
		for _, attr := range f[2:] {
			if id, ok := strings.CutPrefix(attr, "peeled:"); ok {
				err = r.ref(id, f[1]+"^{}")
			}
			if err != nil {
				return err
			}
		}
	}
}

// command is a request of version 2.
func (r *Remote) command(name string, args []string) string {
	var b strings.Builder
	b.WriteString(pktLine("command=%s\n", name))
	if format, ok := r.caps["object-format"]; ok {
		b.WriteString(pktLine("object-format=%s\n", format))
	}
	b.WriteString(delimPkt)
	for _, a := range args {
		b.WriteString(pktLine("%s\n", a))
	}
	b.WriteString(flushPkt)
	return b.String()
}

// request is for objects.
type request struct {
	wants   []string
	shallow bool // without what leads to them
	commits bool // no trees and no files
}

// fetch asks for objects, and keeps them in a new folder in dir.
func (r *Remote) fetch(ctx context.Context, dir string, q request) (*Repo, error) {
	repo, err := newRepo(dir, r.hexLen)
	if err != nil {
		return nil, err
	}
	err = r.session(ctx, func(ctx context.Context, l link, w *watch) error {
		if r.base == "" { // by other ways than HTTP a connection begins so
			if err := r.greet(ctx, l); err != nil {
				return err
			}
		}
		text, read := r.fetchV0(q)
		if r.v2 {
			text, read = r.fetchV2(q)
		}
		in, err := l.ask(ctx, text)
		if err != nil {
			return err
		}
		defer in.Close()
		pack, err := read(newPktReader(in))
		if err != nil {
			return noEOF(err)
		}
		return repo.receive(ctx, pack, w, r.opts.Max)
	})
	if err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return repo, nil
}

// packIn finds the pack in an answer.
type packIn func(p *pktReader) (io.Reader, error)

// fetchV2 is a request of version 2 (gitprotocol-v2, "fetch").
func (r *Remote) fetchV2(q request) (string, packIn) {
	args := []string{"no-progress", "ofs-delta"}
	for _, id := range q.wants {
		args = append(args, "want "+id)
	}
	if q.shallow && r.supports("shallow") {
		args = append(args, "deepen 1")
	}
	if q.commits {
		args = append(args, "filter tree:0")
	}
	return r.command("fetch", append(args, "done")), func(p *pktReader) (io.Reader, error) {
		for {
			switch line, err := p.text(); {
			case errors.Is(err, errDelim):
			case errors.Is(err, errFlush):
				return nil, errors.New("the server has sent nothing")
			case err != nil:
				return nil, err
			case line == "packfile":
				return &banded{p: p}, nil
			}
		}
	}
}

// fetchV0 is a request of version 0 (gitprotocol-pack, "Packfile
// Negotiation").
func (r *Remote) fetchV0(q request) (string, packIn) {
	var caps []string
	// Some servers answer only who knows of several ACKs: with no objects here
	// there are none.
	for _, c := range []string{"multi_ack_detailed", "ofs-delta", "no-progress", "side-band-64k"} {
		if r.supports(c) {
			caps = append(caps, c)
		}
	}
	shallow := q.shallow && r.supports("shallow")
	if shallow {
		caps = append(caps, "shallow")
	}
	if q.commits {
		caps = append(caps, "filter")
	}
	if format, ok := r.caps["object-format"]; ok {
		caps = append(caps, "object-format="+format)
	}
	var b strings.Builder
	for i, id := range q.wants {
		if i == 0 {
			id += " " + strings.Join(caps, " ")
		}
		b.WriteString(pktLine("want %s\n", id))
	}
	if shallow {
		b.WriteString(pktLine("deepen 1\n"))
	}
	if q.commits {
		b.WriteString(pktLine("filter tree:0\n"))
	}
	b.WriteString(flushPkt + pktLine("done\n"))
	return b.String(), func(p *pktReader) (io.Reader, error) {
		for {
			line, err := p.text()
			switch {
			case errors.Is(err, errFlush) && shallow:
				shallow = false // what is shallow has been said
			case err != nil:
				return nil, err
			case line == "NAK", strings.HasPrefix(line, "ACK "):
				if r.supports("side-band-64k") {
					return &banded{p: p}, nil
				}
				return p.r, nil
			}
		}
	}
}
