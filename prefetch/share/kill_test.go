package share

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// childEnv says what a child process does until it is killed or done: push or
// pull, the store, a file with the lock, and the reference.
const childEnv = "CAISSON_SHARE_CHILD"

func TestMain(m *testing.M) {
	if what := strings.Fields(os.Getenv(childEnv)); len(what) == 4 {
		if err := childMain(what[0], what[1], what[2], what[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func childMain(what, dir, file, ref string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var l lock.Lock
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	s, err := cas.Open(dir)
	if err != nil {
		return err
	}
	if what == "push" {
		_, err = Push(context.Background(), ref, &l, text, s, options())
	} else {
		_, err = Pull(context.Background(), ref, &l, text, s, options())
	}
	return err
}

// Pushes and pulls are killed at any moment: what is in a store is sound, the
// next one goes on, and in the end all is there.
func TestKilled(t *testing.T) {
	srv, host := newServer(t)
	l, text, s := world(t)
	file := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	srv.set(func(http.ResponseWriter, *http.Request) bool {
		time.Sleep(10 * time.Millisecond)
		return false
	})
	ref, to := host+"/team/store:1", newStore(t)
	for _, what := range []string{"push", "pull"} {
		dir := s.Dir()
		if what == "pull" {
			dir = to.Dir()
		}
		killed := 0
		for round := range 10 {
			var said bytes.Buffer
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{what, dir, file, ref}, " "))
			c.Stderr = &said
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(40+15*round) * time.Millisecond)
			c.Process.Kill() // SIGKILL
			if c.Wait() != nil {
				killed++
			}
			if said.Len() > 0 {
				t.Errorf("%s: %s", what, said.String())
			}
			for _, in := range l.Inputs {
				if s := to; s.Has(in.SHA256) {
					if err := s.Verify(in.SHA256); err != nil {
						t.Error(err)
					}
				}
			}
		}
		if killed == 0 {
			t.Errorf("%s: none was killed", what)
		}
		if err := childMain(what, dir, file, ref); err != nil {
			t.Errorf("%s, in the end: %v", what, err)
		}
	}
	to, err := cas.Open(to.Dir()) // what the killed ones have left is removed
	if err != nil {
		t.Fatal(err)
	}
	same(t, l, to)
}
