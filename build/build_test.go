package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/prefetch/cas"
)

// names are what is in a folder, sorted.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func readFiles(t *testing.T, dir string) map[string]File {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "files.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []File
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]File{}
	for _, f := range all {
		out[f.Part+":"+f.Path] = f
	}
	return out
}

func readEvidence(t *testing.T, dir string) *Evidence {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	var ev Evidence
	if err := json.Unmarshal(b, &ev); err != nil {
		t.Fatal(err)
	}
	return &ev
}

// TestBuild builds small images by real rpm, and in many ways fails to.
func TestBuild(t *testing.T) {
	d := newDistro(t)
	t.Run("Accounts", func(t *testing.T) { testAccounts(t, d) })
	t.Run("Failures", func(t *testing.T) { testFailures(t, d) })
	t.Run("Recorded", func(t *testing.T) { testRecorded(t, d) })
	t.Run("RootStep", func(t *testing.T) { testRootStep(t, d) })
	t.Run("Given", func(t *testing.T) { testGiven(t, d) })
	t.Run("Reuse", func(t *testing.T) { testReuse(t, d) })
	t.Run("Unread", func(t *testing.T) { testUnread(t, d) })
	t.Run("Interrupted", func(t *testing.T) { testInterrupted(t, d) })
	t.Run("Removed", func(t *testing.T) { testRemoved(t, d) })
	t.Run("Store", func(t *testing.T) { testStore(t, d) })
	t.Run("Layers", func(t *testing.T) { testLayers(t, d) })
	t.Run("Conditions", func(t *testing.T) { testConditions(t, d) })
	t.Run("Settings", func(t *testing.T) { testSettings(t, d) })
	t.Run("Scriptless", func(t *testing.T) { testScriptless(t, d) })
	t.Run("Output", func(t *testing.T) { testOutput(t, d) })
	t.Run("Container", func(t *testing.T) { testContainer(t, d) })
	t.Run("Kept", func(t *testing.T) { testKept(t, d) })
	t.Run("KeptInstallation", func(t *testing.T) { testKeptInstallation(t, d) })
	t.Run("KeptNoStep", func(t *testing.T) { testKeptNoStep(t, d) })
	t.Run("Space", func(t *testing.T) { testSpace(t, d) })
}

func testAccounts(t *testing.T, d *distro) {
	t.Parallel()
	extra := t.TempDir()
	put(t, extra, file{path: "usr/bin/tool", mode: 0o755, content: "tool"}, file{path: "etc/tool.conf", mode: 0o644, content: "old\n"},
		file{path: "usr/share/tool/link", mode: os.ModeSymlink, content: "a"}, file{path: "usr/share/tool/closed", mode: 0, content: "closed"},
		file{path: "usr/share/tool/mode", mode: 0o644, content: "mode"}, file{path: "var/lib/tool/db", mode: 0o600, content: "db"})
	d = d.with(func(d *distro) {
		d.add(t, lock.SetRoot, "tool", extra, `
%post
echo new >> /etc/tool.conf
printf cache > /var/lib/tool/cache
printf ghost > /var/lib/tool/ghost
[ -L /usr/share/tool/link ]
%posttrans -p <lua>
posix.symlink("tool", "/usr/bin/tool2")
posix.chmod("/usr/share/tool/mode", "rw-------")
%files
%attr(4755,root,daemon) %caps(cap_net_raw=ep) /usr/bin/tool
%config /etc/tool.conf
/usr/share/tool
%dir %attr(0750,daemon,daemon) /var/lib/tool
%attr(0600,daemon,root) /var/lib/tool/db
%ghost /var/lib/tool/ghost
`)
		d.lock.Steps = []lock.Step{{Run: `install -d -m 0700 $OUT/root/.ssh; printf key > $OUT/root/.ssh/keys; printf other > $OUT/var-log; install -D -m 4755 $OUT/var-log $OUT/lib/set; ls /store 2>/dev/null || true`}}
		d.lock.Image.Services.Enable = []string{"one.service"}
	})
	out := t.TempDir()
	img, err := Build(context.Background(), d.options(out))
	if err != nil {
		t.Fatal(err)
	}
	got := readFiles(t, out)
	for path, want := range map[string]string{
		"root:/usr/bin/tool":                        "104755 0:34 vendor ",
		"root:/etc/tool.conf":                       "100644 0:0 changed post of tool-1-1.x86_64",
		"root:/usr/share/tool/link":                 "120777 0:0 vendor ",
		"root:/usr/share/tool/closed":               "100000 0:0 vendor ",
		"root:/usr/share/tool/mode":                 "100600 0:0 vendor ",
		"root:/var/lib/tool":                        "40750 12:34 vendor ",
		"root:/var/lib/tool/db":                     "100600 12:0 vendor ",
		"root:/var/lib/tool/ghost":                  "100644 0:0 generated post of tool-1-1.x86_64",
		"root:/var/lib/tool/cache":                  "100644 0:0 generated post of tool-1-1.x86_64",
		"root:/usr/bin/tool2":                       "120777 0:0 generated posttrans of tool-1-1.x86_64",
		"root:/usr/lib/sysimage/rpm/rpmdb.sqlite":   "100644 0:0 generated rpm",
		"root:/root/.ssh":                           "40700 0:0 compiled step 1",
		"root:/root/.ssh/keys":                      "100644 0:0 compiled step 1",
		"root:/usr/lib/set":                         "104755 0:0 compiled step 1",
		"root:/etc/enabled-one.service":             "100644 0:0 generated services",
		"root:/etc/machine-id":                      "100444 0:0 generated normalise",
		"root:/" + kernelDir + "/modules.dep":       "100644 0:0 vendor ",
		"initrd:/" + kernelDir + "/kernel/one.ko":   "100644 0:0 vendor kernel modules",
		"initrd:/" + kernelDir + "/kernel/two.ko":   "100644 0:0 vendor kernel modules",
		"initrd:/" + kernelDir + "/modules.dep.bin": "100644 0:0 generated depmod",
		"initrd:/init":                              "120777 0:0 generated normalise",
		"esp:/EFI/BOOT/BOOTX64.EFI":                 "100644 0:0 generated assembly",
	} {
		f := got[path]
		if line := fmt.Sprintf("%o %d:%d %s %s", f.Mode, f.UID, f.GID, f.Account, f.By); line != want {
			t.Errorf("%s: got %q, want %q", path, line, want)
		}
	}
	for path := range got {
		if strings.HasSuffix(path, ":/store") || strings.HasSuffix(path, "three.ko") && strings.HasPrefix(path, "initrd") {
			t.Errorf("%s is in the image", path)
		}
	}
	if want := []string{"build.log", "evidence.json", "files.json", "tiny.qcow2"}; !slices.Equal(names(t, out), want) {
		t.Errorf("the output folder has %v, want %v", names(t, out), want)
	}
	if img.Files[0].Name != "tiny.qcow2" || len(img.RootHash) != 64 || img.Totals[Changed].Files != 1 {
		t.Errorf("got %+v", img)
	}
}

func testFailures(t *testing.T, d *distro) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, d *distro)
		want   string // in the error
	}{
		{"a scriptlet that fails", func(t *testing.T, d *distro) { d.add(t, lock.SetRoot, "bad", "", "%post\nexit 7\n%files\n") }, "scriptlet failed, exit status 7"},
		{"a Lua scriptlet that fails", func(t *testing.T, d *distro) {
			d.add(t, lock.SetRoot, "bad", "", "%post -p <lua>\nerror(\"no good\")\n%files\n")
		}, "no good"},
		{"a first scriptlet that fails", func(t *testing.T, d *distro) { d.add(t, lock.SetRoot, "bad", "", "%pre\nexit 7\n%files\n") }, "bad-1-1"},
		{"a user that is missing", func(t *testing.T, d *distro) {
			tree := t.TempDir()
			put(t, tree, file{path: "opt/bad", mode: 0o644})
			d.add(t, lock.SetRoot, "bad", tree, "%files\n%attr(-,nobodyknows,root) /opt/bad\n")
		}, "nobodyknows"},
		{"a package with a pipe", func(t *testing.T, d *distro) {
			tree := t.TempDir()
			if err := unix.Mkfifo(filepath.Join(tree, "pipe"), 0o644); err != nil {
				t.Fatal(err)
			}
			d.add(t, lock.SetRoot, "bad", tree, "")
		}, "/pipe is a pipe"},
		{"a scriptlet that uses the network", func(t *testing.T, d *distro) {
			d.add(t, lock.SetRoot, "bad", "", "%post\n(echo > /dev/tcp/192.0.2.1/80) 2>/dev/null || true\n%files\n")
		}, "192.0.2.1:80"},
		{"a step that fails", func(t *testing.T, d *distro) { d.lock.Steps = []lock.Step{{Run: "echo about to fail; exit 1"}} }, "exit code 1\nabout to fail"},
		{"a step that is killed", func(t *testing.T, d *distro) { d.lock.Steps = []lock.Step{{Run: "kill -KILL $$"}} }, "SIGKILL"},
		{"a step that uses the network", func(t *testing.T, d *distro) {
			d.lock.Steps = []lock.Step{{Run: "(echo > /dev/udp/192.0.2.1/53) || true"}}
		}, "tried to reach the network"},
		{"a step that leaves a pipe", func(t *testing.T, d *distro) { d.lock.Steps = []lock.Step{{Run: `mkfifo "$OUT/pipe"`}} }, "placing /pipe: neither a file nor"},
		{"a step that leaves a folder for a file", func(t *testing.T, d *distro) {
			d.lock.Steps = []lock.Step{{Run: `printf x > "$OUT/a"`}, {Run: `install -d "$OUT/a"`}}
		}, "step 2: $OUT/a"},
		{"a step that writes to its tools", func(t *testing.T, d *distro) { d.lock.Steps = []lock.Step{{Run: "printf x > /usr/bin/rpm"}} }, "Read-only"},
		{"a service that is missing", func(t *testing.T, d *distro) { d.lock.Image.Services.Enable = []string{"broken.service"} }, "enable services"},
		{"a kernel module that is missing", func(t *testing.T, d *distro) {
			d.lock.Sets = slices.Clone(d.lock.Sets)
			d.lock.Sets[2].Modules = []string{"four"}
		}, `no module "four"`},
		{"no tools", func(t *testing.T, d *distro) { d.lock.Inputs = d.lock.Inputs[:0] }, "no tools set"},
		{"another revision", func(t *testing.T, d *distro) { d.lock.Revision++ }, "revision"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := t.TempDir()
			_, err := Build(context.Background(), d.with(func(d *distro) { c.change(t, d) }).options(out))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			var network *NetworkError
			if strings.Contains(c.name, "network") != errors.As(err, &network) {
				t.Errorf("got a %T", err)
			}
			if left := names(t, out); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// testRecorded lets a step try the network where the lock says that this is
// only recorded.
func testRecorded(t *testing.T, d *distro) {
	t.Parallel()
	d = d.with(func(d *distro) {
		d.lock.RecordNetwork = true
		d.lock.Steps = []lock.Step{{Run: "(echo > /dev/udp/192.0.2.1/53) || true"}}
	})
	out := t.TempDir()
	if _, err := Build(context.Background(), d.options(out)); err != nil {
		t.Fatal(err)
	}
	ev := readEvidence(t, out)
	i := slices.IndexFunc(ev.Steps, func(s sandbox.Evidence) bool { return len(s.NetworkAttempts()) > 0 })
	if i < 0 || ev.Steps[i].Attempts[0].Destination != "192.0.2.1:53" {
		t.Errorf("the attempt is not recorded: %+v", ev.Steps)
	}
}

// testRootStep lets a step work on the installed root, from outside and from
// inside: owners, modes and content are as it left them, and so is the account.
func testRootStep(t *testing.T, d *distro) {
	t.Parallel()
	d = d.with(func(d *distro) {
		d.lock.Steps = []lock.Step{
			{Run: "echo made > $OUT/outside"},
			{Run: "test ! -e $ROOT/outside; install -d ${ROOT}/etc/made.d; echo a > a; install -m 640 -o 5 -g 6 a $ROOT/etc/made.d/a"},
			{Run: "echo x >> $ROOT/usr/bin/systemctl; chroot $ROOT /bin/sh -c 'read b < /etc/made.d/a; echo $b > /etc/made.d/b'"},
		}
	})
	out := t.TempDir()
	if _, err := Build(context.Background(), d.options(out)); err != nil {
		t.Fatal(err)
	}
	files := readFiles(t, out)
	for p, want := range map[string]string{
		"/outside": "100644 0:0 compiled step 1", "/etc/made.d": "40755 0:0 compiled step 2", "/etc/made.d/a": "100640 5:6 compiled step 2",
		"/etc/made.d/b": "100644 0:0 compiled step 3", "/usr/bin/systemctl": "100755 0:0 changed step 3",
	} {
		f := files["root:"+p]
		if got := fmt.Sprintf("%o %d:%d %s %s", f.Mode, f.UID, f.GID, f.Account, f.By); got != want {
			t.Errorf("%s: got %q, want %q", p, got, want)
		}
	}
}

// testUnread gives a step two files, of which it reads one.
func testUnread(t *testing.T, d *distro) {
	t.Parallel()
	d = d.with(func(d *distro) {
		for _, name := range []string{"read", "spare"} {
			sum, size, err := d.store.Put(strings.NewReader("content of "+name), [32]byte{})
			if err != nil {
				t.Fatal(err)
			}
			d.lock.Inputs = append(d.lock.Inputs, lock.Input{Kind: lock.KindFile, Name: name, URL: "https://a.example/" + name, SHA256: sum, Size: size})
		}
		slices.SortFunc(d.lock.Inputs, func(a, b lock.Input) int { return strings.Compare(a.Kind+a.Name, b.Kind+b.Name) })
		d.lock.Steps = []lock.Step{{Run: "ls -l $IN/spare; cat $IN/read"}}
	})
	out := t.TempDir()
	if _, err := Build(context.Background(), d.options(out)); err != nil {
		t.Fatal(err)
	}
	ev := readEvidence(t, out)
	if ev.Unread == nil || !slices.Equal(*ev.Unread, []string{"file/spare"}) || len(ev.Unused) != 0 {
		t.Errorf("unread %v, unused %v, want file/spare to be unread", ev.Unread, ev.Unused)
	}
}

// testInterrupted cancels a build at the beginning of each of its stages.
func testInterrupted(t *testing.T, d *distro) {
	d = d.with(func(d *distro) { d.lock.Steps = []lock.Step{{Run: "sleep 1"}} })
	var stages atomic.Int64
	o := d.options(t.TempDir())
	var told steps
	o.Events = func(e Event) {
		told.add(t, e)
		if e.State == Begun {
			stages.Add(1)
		}
	}
	if _, err := Build(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	told.whole(t, len(d.lock.Inputs))
	if stages.Load() < 12 {
		t.Fatalf("only %d stages", stages.Load())
	}
	for n := int64(1); n <= stages.Load(); n++ {
		t.Run(fmt.Sprint("stage ", n), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var at atomic.Int64
			o := d.options(t.TempDir())
			o.Keep = n == 2
			o.Events = func(e Event) {
				if e.State == Begun && at.Add(1) == n {
					cancel()
				}
			}
			_, err := Build(ctx, o)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			left := names(t, o.Out)
			var kept *KeptError
			if o.Keep {
				if !errors.As(err, &kept) || len(left) != 1 || kept.Dir != filepath.Join(o.Out, left[0]) {
					t.Errorf("got %v and %v, want the working folder to be kept", err, left)
				}
			} else if len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// testStore builds from a store that lacks an input, or has another file under
// its name.
func testStore(t *testing.T, d *distro) {
	t.Parallel()
	for i, in := range d.lock.Inputs {
		t.Run(in.Name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := cas.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			for j, other := range d.lock.Inputs {
				f, err := d.store.Open(other.SHA256)
				if err != nil {
					t.Fatal(err)
				}
				if j != i {
					if _, _, err := s.Put(f, other.SHA256); err != nil {
						t.Fatal(err)
					}
				}
				f.Close()
			}
			o := d.options(t.TempDir())
			o.Store = s
			_, err = Build(context.Background(), o)
			var missing *cas.MissingError
			if !errors.As(err, &missing) || missing.Name != "rpm/"+in.Name || !strings.Contains(err.Error(), in.Name) {
				t.Errorf("got %v, want the store to lack rpm/%s", err, in.Name)
			}
			b, err := os.ReadFile(d.store.Path(in.SHA256))
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-9] ^= 1
			p := s.Path(in.SHA256)
			os.MkdirAll(filepath.Dir(p), 0o755)
			if err := os.WriteFile(p, b, 0o444); err != nil {
				t.Fatal(err)
			}
			_, err = Build(context.Background(), o)
			var damaged *cas.DamagedError
			if !errors.As(err, &damaged) || damaged.Name != "rpm/"+in.Name {
				t.Errorf("got %v, want rpm/%s to be damaged", err, in.Name)
			}
			if left := names(t, o.Out); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// testOutput builds into folders that have something, that may not be written
// to, and that fill up.
func testOutput(t *testing.T, d *distro) {
	t.Parallel()
	out := t.TempDir()
	old := []string{"image.json", "measurements.json", "report.json", "report.html", "sbom.spdx.json", "tiny.raw", "tiny.qcow2", "files.json", "statements/vsa.json", "statements/vsa.sigstore.json"}
	mine := []string{"caisson.lock", "tiny-debug.qcow2", "statements/mine.json", ".build-mine.txt"}
	for _, name := range append(slices.Clone(old), mine...) {
		os.MkdirAll(filepath.Join(out, filepath.Dir(name)), 0o755)
		if err := os.WriteFile(filepath.Join(out, name), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What a killed build left, with a folder that is closed; and a folder of
	// a build that goes on.
	killed := filepath.Join(out, ".build-1")
	if err := lay(killed, []file{{path: "a/b", mode: 0o644, content: "x"}, {path: "a", mode: os.ModeDir}}, false); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(out, ".build-2"), 0o755); err != nil {
		t.Fatal(err)
	}
	running, err := os.Open(filepath.Join(out, ".build-2"))
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	if err := unix.Flock(int(running.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// A build that fails touches nothing of it.
	bad := d.with(func(d *distro) { d.lock.Steps = []lock.Step{{Run: "exit 1"}} })
	if _, err := Build(context.Background(), bad.options(out)); err == nil {
		t.Fatal("a step that fails did not fail the build")
	}
	for _, name := range append(slices.Clone(old), mine...) {
		if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(b) != "old" {
			t.Errorf("%s after a build that failed: %q, %v", name, b, err)
		}
	}
	if _, err := os.Lstat(killed); err == nil {
		t.Error("what a killed build left is still there")
	}
	if _, err := Build(context.Background(), d.options(out)); err != nil {
		t.Fatal(err)
	}
	want := []string{".build-2", ".build-mine.txt", "build.log", "caisson.lock", "evidence.json", "files.json", "statements", "tiny-debug.qcow2", "tiny.qcow2"}
	if got := names(t, out); !slices.Equal(got, want) {
		t.Errorf("the output folder has %v, want %v", got, want)
	}
	if got := names(t, filepath.Join(out, "statements")); !slices.Equal(got, []string{"mine.json"}) {
		t.Errorf("statements has %v", got)
	}
	t.Run("a file in the place of the folder", func(t *testing.T) {
		if _, err := Build(context.Background(), d.options(filepath.Join(out, "caisson.lock"))); err == nil || !strings.Contains(err.Error(), "caisson.lock") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a folder that may not be written to", func(t *testing.T) {
		got := condition{umask: "022", ordinary: true}.build(t, d, "CAISSON_TEST_CLOSED=yes")
		if !strings.Contains(got, "permission denied") || !strings.HasSuffix(got, "left: []\n") {
			t.Errorf("got %s", got)
		}
	})
	for _, mb := range []string{"1", "28"} {
		t.Run("a disk of "+mb+" MB", func(t *testing.T) {
			got := condition{umask: "022"}.build(t, d, "CAISSON_TEST_DISK="+mb)
			if !strings.Contains(got, "error: a build in ") || !strings.HasSuffix(got, "left: []\n") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// testConditions builds under other conditions and as other users.
func testConditions(t *testing.T, d *distro) {
	t.Parallel()
	d = d.with(func(d *distro) {
		d.lock.Steps = []lock.Step{{Run: `install -d -m 0750 "$OUT/opt/a"; printf x > "$OUT/opt/a/b"`}}
		d.addSettings(t)
	})
	want := condition{umask: "022"}.build(t, d)
	if !strings.Contains(want, "tiny.qcow2") {
		t.Fatalf("got %s", want)
	}
	for _, c := range []condition{
		{name: "time zone, locale, umask 077, one CPU", env: []string{"TZ=Asia/Tokyo", "LC_ALL=de_DE.UTF-8", "GOMAXPROCS=1"}, umask: "077"},
		{name: "tmpfs, umask 0, a busy environment", dir: "/dev/shm", env: []string{"HOME=/nowhere", "GOMAXPROCS=8", "SOURCE_DATE_EPOCH=1", "LD_LIBRARY_PATH=/nowhere", "RPM_CONFIGDIR=/nowhere"}, umask: "0"},
		{name: "an ordinary user", umask: "027", ordinary: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := c.build(t, d); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// TestDebrepo builds an image of a real distribution, the one that
// cmd/debrepo makes, twice and as another user. CAISSON_DEBREPO names it.
func TestDebrepo(t *testing.T) {
	repo := os.Getenv("CAISSON_DEBREPO")
	if repo == "" {
		t.Skip("CAISSON_DEBREPO does not name a repository that debrepo made")
	}
	d := debrepo(t, repo)
	want := condition{umask: "022"}.build(t, d)
	if !strings.Contains(want, "tiny.qcow2") {
		t.Fatalf("got %s", want)
	}
	t.Log(want)
	for _, c := range []condition{
		{name: "another user", env: []string{"TZ=Asia/Tokyo", "GOMAXPROCS=1"}, umask: "077", ordinary: true},
		{name: "tmpfs", dir: "/dev/shm", env: []string{"HOME=/nowhere", "LC_ALL=de_DE.UTF-8"}, umask: "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.build(t, d); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}
