package prefetch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// best is the shortest of several times: on a busy machine the one that says
// most of the work itself.
type best time.Duration

func (b *best) add(d time.Duration) {
	if *b == 0 || best(d) < *b {
		*b = best(d)
	}
}

// over is how many times as long another one is.
func (b best) over(other best) float64 { return float64(b) / float64(other) }

// contest has all do their work in turn, again and again, each in a folder of
// its own below where, and returns the best time of each.
func contest(b *testing.B, where string, all ...func(dir string) error) []best {
	b.Helper()
	took := make([]best, len(all))
	for b.Loop() {
		for i, do := range all {
			dir, err := os.MkdirTemp(where, "contest")
			if err != nil {
				b.Fatal(err)
			}
			begin := time.Now()
			err = do(dir)
			took[i].add(time.Since(begin))
			if e := os.RemoveAll(dir); err != nil || e != nil {
				b.Fatal(err, e)
			}
		}
	}
	return took
}

// shell runs a script, whose $0 is a folder.
func shell(script string) func(dir string) error {
	return func(dir string) error {
		if out, err := exec.Command("sh", "-ec", script, dir).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// fillNew fills a new store.
func fillNew(l *lock.Lock, cfg Config) func(dir string) error {
	return func(dir string) error {
		s, err := cas.Open(filepath.Join(dir, "store"))
		if err == nil {
			_, err = Fill(context.Background(), l, s, Options{Config: cfg})
		}
		return err
	}
}

// inMemory is a folder that is on no disk, so that nothing waits for one.
func inMemory(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "caisson")
	if err != nil {
		b.Skipf("no file system in memory: %v", err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
