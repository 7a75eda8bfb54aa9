package boot

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"caisson/verify/measure"
)

// TestSecureBootRefuses shows a machine with Secure Boot what it must not start:
// a signed program with another byte, and one that somebody else signed. It
// says so, and measures no kernel; nor does the prediction have one.
func TestSecureBootRefuses(t *testing.T) {
	k := &kit{t: t, parts: packages(t), rootHash: chainRootHash(t), key: newSigner(t)}
	k.initrd = chainInitrd(t, k.parts["busybox"])
	good := k.key.sign(t, k.uki("257"))
	changed := append([]byte(nil), good...)
	at := strings.Index(string(changed), consoleArgs)
	changed[at] ^= 0x20 // the command line
	for name, program := range map[string][]byte{"another byte": changed, "another key": newSigner(t).sign(t, k.uki("257"))} {
		t.Run(name, func(t *testing.T) {
			platform := measure.Owned(k.key.cert)
			disk := chainDisk(t, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": program})
			r, err := Run(context.Background(), Options{
				Disk: disk, Format: "raw", Secure: &platform, WaitFor: []*regexp.Regexp{regexp.MustCompile("Access Denied|Security Violation")},
			})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(r.Serial, logStart) || len(r.Takeover) > 0 {
				t.Errorf("the machine booted:\n%s", r.Serial)
			}
			if _, err := predict(t, platform, disk); err == nil {
				t.Error("a boot is predicted")
			}
		})
	}
}
