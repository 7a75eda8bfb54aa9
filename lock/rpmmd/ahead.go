package rpmmd

import "io"

// readAhead returns a reader of r that reads in a goroutine of its own, at
// most three blocks of 128 KiB ahead: decompression and parsing take about
// the same time. Close ends the goroutine and closes r.
func readAhead(r io.ReadCloser) io.ReadCloser {
	const blocks, size = 3, 128 << 10
	a := &ahead{r: r, full: make(chan block, blocks), free: make(chan []byte, blocks), stop: make(chan struct{})}
	for range blocks {
		a.free <- make([]byte, size)
	}
	go a.fill()
	return a
}

// block is what one call of Read gave.
type block struct {
	b   []byte
	err error
}

type ahead struct {
	r    io.ReadCloser
	full chan block
	free chan []byte
	stop chan struct{}
	now  block  // the block being read
	rest []byte // what is left of it
}

// fill reads blocks until there is an error, or until it is to stop.
func (a *ahead) fill() {
	defer close(a.full)
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		n, err := a.r.Read(b[:cap(b)])
		select {
		case a.full <- block{b[:n], err}:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.b != nil {
			a.free <- a.now.b
		}
		a.now = <-a.full
		a.rest = a.now.b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *ahead) Close() error {
	close(a.stop)
	for range a.full { // until fill has ended
		continue
	}
	return a.r.Close()
}
