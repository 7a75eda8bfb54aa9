package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
)

func TestCompareOutputs(t *testing.T) {
	all := map[string]string{"x.qcow2": "q", "x.vhd": "v", "x.vmlinuz": "k", "x.initrd": "i", "x.cmdline": "c", "x.root": "r"}
	for _, c := range []struct {
		name    string
		outputs []string
		change  map[string]string // beside the image; "" for removed
		status  Status
		detail  string
	}{
		{"one", []string{"qcow2"}, nil, "", ""},
		{"all", []string{"qcow2", "vhd", "netboot"}, nil, Passed, "the same to the bit: x.vhd, x.vmlinuz, x.initrd, x.cmdline, x.root"},
		{"another disk", []string{"qcow2", "vhd"}, map[string]string{"x.vhd": "w"}, Failed, "x.vhd is not what the lock makes"},
		{"another kernel", []string{"qcow2", "netboot"}, map[string]string{"x.vmlinuz": "l"}, Failed, "x.vmlinuz is not"},
		{"some gone", []string{"qcow2", "vhd", "netboot"}, map[string]string{"x.root": "", "x.vhd": ""}, Passed, "; not beside the image, and not compared: x.vhd, x.root"},
		{"gone", []string{"qcow2", "vhd"}, map[string]string{"x.vhd": ""}, NotAsked, "not beside the image, and not compared: x.vhd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dirs := []string{t.TempDir(), t.TempDir()}
			for name, content := range all {
				for i, dir := range dirs {
					if other, ok := c.change[name]; ok && i == 0 {
						if content = other; other == "" {
							continue
						}
					}
					if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
						t.Fatal(err)
					}
					content = all[name]
				}
			}
			l := &lock.Lock{Name: "x", Arches: []string{"x86_64"}, Image: lock.Image{Output: c.outputs}}
			v := &verification{
				Options: Options{Lock: l, Arch: "x86_64", Image: filepath.Join(dirs[0], "x.qcow2")},
				report:  &Report{}, disk: &Disk{Format: "qcow2"}, rebuildDir: dirs[1],
			}
			if err := v.compareOutputs(); err != nil {
				t.Fatal(err)
			}
			if c.status == "" {
				if len(v.report.Checks) > 0 {
					t.Errorf("got %+v, want no check", v.report.Checks)
				}
				return
			}
			if len(v.report.Checks) != 1 || v.report.Checks[0].Status != c.status || !strings.Contains(v.report.Checks[0].Detail, c.detail) {
				t.Errorf("got %+v, want %s, %q", v.report.Checks, c.status, c.detail)
			}
		})
	}
}
