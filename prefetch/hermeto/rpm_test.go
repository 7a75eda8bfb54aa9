package hermeto

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
)

const miniSpec = `Name: mini
Version: 1
Release: 2
Epoch: 3
Summary: A äöü "mini" <pkg>
License: x
Vendor: ACME Widgets, Inc.
BuildArch: noarch
ModularityLabel: m:1:2:3
%description
x
%files
`

// TestRPM: what a package's header says, and where it is needed for want of a
// better source. The package URLs are Hermeto's.
func TestRPM(t *testing.T) {
	if _, err := exec.LookPath("rpmbuild"); err != nil {
		missing(t, err.Error())
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"mini.spec": miniSpec})
	if out, err := run(t, dir, []string{"LC_ALL=C.UTF-8"}, "rpmbuild", "--quiet", "--define", "_topdir "+dir, "-ba", "mini.spec"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := newStore(t)
	at := map[string]string{}
	var sums []string
	for _, name := range []string{"RPMS/noarch/mini-1-2.noarch.rpm", "SRPMS/mini-1-2.src.rpm"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := s.Put(strings.NewReader(string(b)), digest.Of(b))
		if err != nil {
			t.Fatal(err)
		}
		at["https://h/"+filepath.Base(name)] = d.Hex()
		sums = append(sums, d.String())
	}
	src := t.TempDir()
	write(t, src, map[string]string{"rpms.lock.yaml": "lockfileVersion: 1\nlockfileVendor: redhat\narches:\n- arch: x86_64\n" +
		"  packages:\n  - {url: 'https://h/mini-1-2.noarch.rpm', checksum: '" + sums[0] + "'}\n" +
		"  source:\n  - {url: 'https://h/mini-1-2.src.rpm', checksum: '" + sums[1] + "', repoid: r}\n"})
	in, err := konflux.ReadPrefetchInput("in", []byte(`{"type": "rpm", "include_summary_in_sbom": true}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(t.Context(), Request{
		Input: in, Digest: digest.Of(nil), Source: src, Store: s,
		Fetch: func(_ context.Context, w lock.Want) (lock.Blob, error) {
			if w.Kind != lock.KindFile || at[w.URL] != w.SHA256.Hex() {
				return lock.Blob{}, errors.New("not served")
			}
			return lock.Blob{SHA256: w.SHA256}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.bom(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"pkg:rpm/acme_widgets%2C_inc./mini@1-2?arch=noarch&checksum=" + sums[0] + "&download_url=https://h/mini-1-2.noarch.rpm&epoch=3",
		"pkg:rpm/acme_widgets%2C_inc./mini@1-2?arch=src&checksum=" + sums[1] + "&epoch=3&repository_id=r",
	}
	var got []string
	for _, c := range b.Components {
		got = append(got, c.PURL)
		props := map[string]string{}
		for _, p := range c.Properties {
			props[p.Name] = p.Value
		}
		if c.Name != "mini" || c.Version != "1" || props["hermeto:rpm_modularity_label"] != "m:1:2:3" || props["hermeto:rpm_summary"] != `A äöü "mini" <pkg>` {
			t.Errorf("got %+v", c)
		}
	}
	same(t, got, want)
	if rpm := p.Lock.Find(lock.KindRPM, "mini-3:1-2.noarch"); rpm == nil || rpm.RPM.Epoch != 3 {
		t.Errorf("got %+v", p.Lock.Inputs)
	}
}
