package rpmdb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// layerOf makes a layer of entries: a content, "->" and the target of a hard
// link, "=>" that of a symbolic one, or a folder where the name ends in "/".
func layerOf(t *testing.T, pack string, entries ...[2]string) Layer {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e[0], Mode: 0o644, Size: int64(len(e[1])), Typeflag: tar.TypeReg}
		content := e[1]
		if target, ok := strings.CutPrefix(content, "->"); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeLink, target, 0, ""
		} else if target, ok := strings.CutPrefix(content, "=>"); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, target, 0, ""
		} else if strings.HasSuffix(e[0], "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	out := b.Bytes()
	switch pack {
	case "gzip":
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(out); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out = z.Bytes()
	case "zstd":
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		out = w.EncodeAll(out, nil)
	}
	return Layer{Name: "of " + entries[0][0], Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out)), nil }}
}

// neverRead is a layer that must not be opened.
func neverRead(t *testing.T) Layer {
	return Layer{Name: "x", Open: func() (io.ReadCloser, error) {
		t.Error("a layer was read though the database was known")
		return nil, errors.New("not to be read")
	}}
}

func TestFromLayers(t *testing.T) {
	root := install(t, buildRPMs(t))
	headers := headersOf(t, root)
	b, err := os.ReadFile(filepath.Join(root, "usr/lib/sysimage/rpm", fileSQLite))
	if err != nil {
		t.Fatal(err)
	}
	both, one := string(b), string(ndbOf(headers[:1]))
	none := string(ndbOf(nil))
	const sysimage, varlib = "usr/lib/sysimage/rpm/", "var/lib/rpm/"
	for _, tt := range []struct {
		name   string
		layers []Layer // lowest first
		want   int
		err    string
	}{
		{"one layer", []Layer{layerOf(t, "", [2]string{varlib + "Packages.db", one})}, 1, ""},
		{"names with a dot", []Layer{layerOf(t, "gzip", [2]string{"./" + varlib, ""}, [2]string{"./" + varlib + "Packages.db", one})}, 1, ""},
		{"the topmost counts", []Layer{
			neverRead(t), layerOf(t, "zstd", [2]string{varlib + "Packages.db", one}), layerOf(t, "gzip", [2]string{"etc/passwd", "x"}),
		}, 1, ""},
		{"another place above", []Layer{
			neverRead(t), layerOf(t, "zstd", [2]string{sysimage + "Packages.db", one}),
		}, 1, ""},
		{"a log below would count", []Layer{
			layerOf(t, "", [2]string{sysimage + "rpmdb.sqlite-wal", ""}), layerOf(t, "", [2]string{sysimage + "rpmdb.sqlite", both}),
		}, 2, ""},
		{"whited out", []Layer{
			layerOf(t, "", [2]string{varlib + "Packages.db", one}), layerOf(t, "", [2]string{varlib + ".wh.Packages.db", ""}),
		}, 0, "no rpm database in usr/lib/sysimage/rpm, var/lib/rpm, files/lib/sysimage/rpm, usr/share/rpm: the image is not made of packages"},
		{"an ancestor whited out, and made again", []Layer{
			layerOf(t, "", [2]string{varlib + "Packages.db", one}), layerOf(t, "", [2]string{"var/.wh.lib", ""}, [2]string{varlib + "Packages", ""}, [2]string{sysimage + "rpmdb.sqlite", both}),
		}, 2, ""},
		{"whited out and made again in the same layer", []Layer{
			layerOf(t, "", [2]string{varlib + "Packages.db", none}), layerOf(t, "", [2]string{varlib + "Packages.db", one}, [2]string{varlib + ".wh.Packages.db", ""}),
		}, 1, ""},
		{"opaque", []Layer{
			layerOf(t, "", [2]string{varlib + "Packages.db", one}), layerOf(t, "", [2]string{varlib + ".wh..wh..opq", ""}),
		}, 0, ErrNone.Error()},
		{"the root opaque", []Layer{layerOf(t, "", [2]string{varlib + "Packages.db", one}), layerOf(t, "", [2]string{".wh..wh..opq", ""})}, 0, ErrNone.Error()},
		{"no folder any more", []Layer{
			layerOf(t, "", [2]string{varlib + "Packages.db", one}),
			layerOf(t, "", [2]string{"var/lib/rpm", "=>../../usr/lib/sysimage/rpm"}, [2]string{sysimage + "rpmdb.sqlite", both}),
		}, 2, ""},
		{"a neighbour's name begins alike", []Layer{
			layerOf(t, "", [2]string{varlib + "Packages.db", one}), layerOf(t, "", [2]string{"var/lib/.wh.rp", ""}, [2]string{"var/lib/rpm2", "x"}),
		}, 1, ""},
		{"hard links of ostree, before and after their target", []Layer{layerOf(t, "",
			[2]string{"sysroot/ostree/repo/objects/aa/a.file", one}, [2]string{"usr/share/rpm/Packages.db", "->sysroot/ostree/repo/objects/aa/a.file"})}, 1, ""},
		{"", []Layer{layerOf(t, "",
			[2]string{"usr/share/rpm/Packages.db", "->./sysroot/ostree/repo/objects/aa/a.file"}, [2]string{"sysroot/ostree/repo/objects/aa/a.file", one})}, 1, ""},
		{"a hard link into a lower layer", []Layer{
			layerOf(t, "", [2]string{"a", one}), layerOf(t, "", [2]string{varlib + "Packages.db", "->a"}),
		}, 1, ""},
		{"two links to one", []Layer{layerOf(t, "",
			[2]string{sysimage + "Packages.db", one}, [2]string{varlib + "Packages.db", "->" + sysimage + "Packages.db"})}, 1, ""},
		{"a hard link to nothing", []Layer{layerOf(t, "", [2]string{varlib + "Packages.db", "->a"})}, 0, "var/lib/rpm/Packages.db is a link to a, which is in no layer"},
		{"without packages", []Layer{layerOf(t, "", [2]string{"bin/app", "x"})}, 0, ErrNone.Error()},
		{"no archive", []Layer{{Name: "sha256:1", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(strings.Repeat("x", 2000))), nil
		}}}, 0, "layer sha256:1: archive/tar: invalid tar header"},
		{"no database", []Layer{layerOf(t, "", [2]string{varlib + "Packages", strings.Repeat("x", 5000)})}, 0, "Packages: no rpm database: it begins with 7878"},
	} {
		got, err := FromLayers(context.Background(), tt.layers)
		if len(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %d packages, %v; want %d, %s", tt.name, len(got), err, tt.want, tt.err)
		}
	}
}

// TestWriteAheadLog: what is in SQLite's log alone counts, also from another
// layer.
func TestWriteAheadLog(t *testing.T) {
	header := headersOf(t, install(t, buildRPMs(t)))[0]
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, fileSQLite))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		"PRAGMA journal_mode = WAL", "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)", "PRAGMA wal_checkpoint(TRUNCATE)",
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec("INSERT INTO Packages VALUES (1, ?)", header); err != nil {
		t.Fatal(err)
	}
	var entries [][2]string
	for _, name := range []string{fileSQLite, fileWAL} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, [2]string{"var/lib/rpm/" + name, string(b)})
	}
	main, log := layerOf(t, "", entries[0]), layerOf(t, "", entries[1])
	for _, tt := range []struct {
		layers []Layer
		want   int
	}{
		{[]Layer{layerOf(t, "", entries...)}, 1},
		{[]Layer{main, log}, 1},
		{[]Layer{log, main}, 1},
		{[]Layer{main}, 0},
		{[]Layer{layerOf(t, "", entries...), layerOf(t, "", [2]string{"var/lib/rpm/.wh." + fileWAL, ""})}, 0},
	} {
		if got, err := FromLayers(context.Background(), tt.layers); err != nil || len(got) != tt.want {
			t.Errorf("got %d packages, %v; want %d", len(got), err, tt.want)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../..", filepath.Join(dir, "usr/lib/sysimage")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".", filepath.Join(dir, "rpm")); err != nil {
		t.Fatal(err)
	}
	if got, err := FromRoot(context.Background(), dir); err != nil || len(got) != 1 {
		t.Errorf("got %d packages, %v", len(got), err)
	}
}

func TestReleaseVerNone(t *testing.T) {
	if v := ReleaseVer(nil); v != "" {
		t.Errorf("got %q", v)
	}
}
