package qcow2

import (
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	defaultLevel   = 3
	defaultWorkers = 4
	jobClusters    = 16 // what a worker reads and compresses at once
	jobSize        = jobClusters * clusterSize
)

// cluster is a cluster of the disk as it is to be stored.
type cluster struct {
	zero   bool
	packed bool // compressed
	data   []byte
}

// Sparse is a disk that may know, without being read, that a part of it is all
// zeros. Write asks it from several goroutines.
type Sparse interface {
	io.ReaderAt
	// Hole tells whether it is known that n bytes from off on are zeros. They are
	// on the disk.
	Hole(off, n int64) bool
}

// job is a part of the disk, with the memory to work on it.
type job struct {
	first    int64 // cluster
	in       []byte
	out      []byte
	clusters []cluster
	err      error
	done     chan struct{}
}

// readClusters calls add for each cluster of a disk, in order, while others
// are being read and compressed.
func readClusters(disk io.ReaderAt, size int64, o Options, add func(i int64, c cluster) error) error {
	workers := o.Workers
	if workers == 0 {
		workers = defaultWorkers
	}
	jobs := (size + jobSize - 1) / jobSize
	workers = int(min(int64(workers), jobs))
	// The jobs that are under way, in their order: a ring.
	ring := make([]*job, 2*workers)
	for i := range ring {
		ring[i] = &job{in: make([]byte, jobSize), done: make(chan struct{}, 1)}
	}
	todo := make(chan *job, len(ring))
	var wg sync.WaitGroup
	defer wg.Wait() // the disk is not read any more when Write returns
	defer close(todo)
	for range workers {
		enc, err := newEncoder(o)
		if err != nil {
			return err
		}
		wg.Go(func() {
			for j := range todo {
				j.run(disk, size, enc)
				j.done <- struct{}{}
			}
		})
	}
	var started int64
	for n := range jobs {
		for ; started < jobs && started < n+int64(len(ring)); started++ {
			j := ring[started%int64(len(ring))]
			j.first = started * jobClusters
			todo <- j
		}
		j := ring[n%int64(len(ring))]
		<-j.done
		if err := j.deliver(add); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) deliver(add func(i int64, c cluster) error) error {
	if j.err != nil {
		return j.err
	}
	for i, c := range j.clusters {
		if err := add(j.first+int64(i), c); err != nil {
			return err
		}
	}
	return nil
}

// newEncoder returns what compresses one cluster at a time, nil where nothing
// is to be compressed. Its output depends on nothing but the cluster.
func newEncoder(o Options) (*zstd.Encoder, error) {
	if !o.Compress {
		return nil, nil
	}
	level := o.Level
	if level == 0 {
		level = defaultLevel
	}
	return zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithWindowSize(clusterSize),
		zstd.WithAllLitEntropyCompression(true), // 1 % smaller
		zstd.WithEncoderCRC(false),              // as QEMU does
	)
}

// run reads the clusters of a job, and compresses them.
func (j *job) run(disk io.ReaderAt, size int64, enc *zstd.Encoder) {
	at := j.first * clusterSize
	n := min(jobSize, size-at)
	if s, ok := disk.(Sparse); ok && s.Hole(at, n) {
		j.clusters = j.clusters[:0]
		for range (n + clusterSize - 1) / clusterSize {
			j.clusters = append(j.clusters, cluster{zero: true})
		}
		return
	}
	if got, err := disk.ReadAt(j.in[:n], at); int64(got) < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		j.err = fmt.Errorf("reading %d bytes of the disk at %d: %w", n, at, err)
		return
	}
	in := j.in[:(n+clusterSize-1)&^(clusterSize-1)]
	clear(in[n:])
	j.out, j.clusters = j.out[:0], j.clusters[:0]
	for ; len(in) > 0; in = in[clusterSize:] {
		c := cluster{data: in[:clusterSize]}
		switch {
		case isZero(c.data):
			c.zero = true
		case enc != nil:
			start := len(j.out)
			j.out = enc.EncodeAll(c.data, j.out)
			if packed := j.out[start:]; len(packed) < clusterSize {
				c.packed, c.data = true, packed
			} else {
				j.out = j.out[:start]
			}
		}
		j.clusters = append(j.clusters, c)
	}
}

// isZero says whether a cluster is all zeros.
func isZero(b []byte) bool {
	for len(b) > 0 {
		if [64]byte(b) != [64]byte{} {
			return false
		}
		b = b[64:]
	}
	return true
}
