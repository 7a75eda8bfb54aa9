package gomod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
)

// TestOwnModule reads this repository's go.mod, and checks every file of it
// that the go command has in its cache.
func TestOwnModule(t *testing.T) {
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	cache := filepath.Join(strings.TrimSpace(string(out)), "cache/download")
	mods, err := Read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	zips := 0
	for _, m := range mods {
		if b, err := os.ReadFile(filepath.Join(cache, ModPath(m))); err == nil {
			if err := CheckMod(b, m.ModH1); err != nil {
				t.Errorf("%s %s: %v", m.Path, m.Version, err)
			}
		}
		zip := filepath.Join(cache, ZipPath(m))
		if _, err := os.Stat(zip); err != nil || m.ZipH1 == "" || zips == 10 {
			continue
		}
		zips++
		if err := CheckZip(zip, m.ZipH1); err != nil {
			t.Error(err)
		}
		if err := CheckZip(zip, h1a); err == nil || !strings.Contains(err.Error(), "want "+h1a) {
			t.Errorf("a wrong hash passed: %v", err)
		}
	}
	if zips == 0 {
		t.Error("no zip was checked: the test itself needs some")
	}
	if err := CheckMod([]byte("module x\n"), h1a); err == nil {
		t.Error("a wrong go.mod passed")
	}
	if _, err := ZipHash("gomod.go"); err == nil {
		t.Error("a hash of what is no zip")
	}
}

// sumdbOf serves a checksum database with that answer, and returns its
// verifier key.
func sumdbOf(t *testing.T, text string) (http.Handler, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, "sum.example.org")
	if err != nil {
		t.Fatal(err)
	}
	db := sumdb.NewTestServer(skey, func(path, vers string) ([]byte, error) {
		if path != "golang.org/toolchain" {
			return fmt.Appendf(nil, "%s %s %s\n%s %s/go.mod %s\n", path, vers, h1b, path, vers, h1b), nil
		}
		return []byte(text), nil
	})
	handler := sumdb.NewServer(db)
	mux := http.NewServeMux()
	for _, p := range sumdb.ServerPaths {
		mux.Handle(p, handler)
	}
	// Other records before ours, so that there is something to prove.
	for i := range 300 {
		if _, err := db.Lookup(context.Background(), moduleVersion(fmt.Sprintf("x.y/m%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	return mux, vkey
}

func TestToolchainSum(t *testing.T) {
	const v = "v0.0.1-go1.26.0.linux-amd64"
	text := "golang.org/toolchain " + v + " " + h1a + "\ngolang.org/toolchain " + v + "/go.mod " + h1b + "\n"
	db, key := sumdbOf(t, text)
	change := func(string, []byte) []byte { return nil }
	var paths []string
	read := func(ctx context.Context, path string) ([]byte, error) {
		paths = append(paths, path)
		rec := httptest.NewRecorder()
		db.ServeHTTP(rec, httptest.NewRequest("GET", path, nil).WithContext(ctx))
		if rec.Code != http.StatusOK {
			return nil, fs.ErrNotExist
		}
		if b := change(path, rec.Body.Bytes()); b != nil {
			return b, nil
		}
		return rec.Body.Bytes(), nil
	}
	ctx := context.Background()
	h1, err := ToolchainSum(ctx, read, "go1.26.0", "linux", "amd64", key)
	if err != nil || h1 != h1a {
		t.Fatalf("got %q, %v, want %q", h1, err, h1a)
	}
	if len(paths) < 2 || paths[0] != "/lookup/golang.org/toolchain@"+v || !strings.HasPrefix(paths[1], "/tile/8/") {
		t.Errorf("it read %q", paths)
	}

	if _, err := ToolchainSum(ctx, read, "go1.26.0", "linux", "amd64", SumDBKey); err == nil {
		t.Error("a database signed by another key was believed")
	}
	if _, err := ToolchainSum(ctx, read, "go1.26.0", "linux", "arm64", key); err == nil {
		t.Error("a record of another toolchain was believed")
	}
	if _, err := ToolchainSum(ctx, read, "go1.26", "linux", "amd64", key); err == nil {
		t.Error("go1.26 is no toolchain")
	}
	change = func(path string, b []byte) []byte {
		if strings.HasPrefix(path, "/lookup/") {
			return []byte(strings.Replace(string(b), h1a, h1b, 1))
		}
		return nil
	}
	if h1, err := ToolchainSum(ctx, read, "go1.26.0", "linux", "amd64", key); err == nil {
		t.Errorf("a record that is not in the tree was believed: %s", h1)
	}
	change = func(path string, b []byte) []byte {
		if strings.HasPrefix(path, "/tile/") {
			return append([]byte{b[0] ^ 1}, b[1:]...)
		}
		return nil
	}
	if h1, err := ToolchainSum(ctx, read, "go1.26.0", "linux", "amd64", key); err == nil {
		t.Errorf("a tree with a false tile was believed: %s", h1)
	}
	gone := func(context.Context, string) ([]byte, error) { return nil, fs.ErrNotExist }
	if _, err := ToolchainSum(ctx, gone, "go1.26.0", "linux", "amd64", key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}

// TestRealToolchainSum asks what the go command has kept of sum.golang.org.
func TestRealToolchainSum(t *testing.T) {
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	cache := filepath.Join(strings.TrimSpace(string(out)), "cache/download/sumdb/sum.golang.org")
	read := func(_ context.Context, path string) ([]byte, error) { return os.ReadFile(cache + path) }
	h1, err := ToolchainSum(context.Background(), read, "go1.26.0", "linux", "amd64", SumDBKey)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("not in the module cache; `go mod download golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64` brings it: %v", err)
	}
	if want := "h1:1p2G5COR51f8Q3EQ4HLJQDDL2ytLEqfL/yTawB0Jr8w="; err != nil || h1 != want {
		t.Errorf("got %q, %v, want %q", h1, err, want)
	}
}

func moduleVersion(path string) module.Version { return module.Version{Path: path, Version: "v1.0.0"} }
