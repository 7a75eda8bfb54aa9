package boot

import (
	"context"
	"encoding/base64"
	"os"
	"regexp"
	"strings"
	"testing"

	"caisson/verify/measure"
)

// chain is a way to a kernel: what is on the EFI system partition.
type chain struct {
	name  string
	files func(k *kit) map[string][]byte
	o     Options
}

// kit is what chains are made of.
type kit struct {
	t        *testing.T
	parts    map[string][]byte
	initrd   []byte
	rootHash string
}

const consoleArgs = "console=ttyS0 panic=-1 "

func (k *kit) uki(version string) []byte {
	return k.ukiWith(version, consoleArgs+"roothash="+k.rootHash)
}

func (k *kit) ukiWith(version, cmdline string) []byte {
	return peImage(k.t, k.parts["stub "+version],
		".osrel", "ID=chain\nVERSION_ID=1\nPRETTY_NAME=Chain\n", ".cmdline", cmdline, ".uname", "6.1.0-chain",
		".initrd", string(k.initrd), ".linux", string(k.parts["kernel"]))
}

func (k *kit) addon(version, cmdline string) []byte {
	return peImage(k.t, k.parts["addon stub "+version], ".cmdline", cmdline, ".sbat", "sbat,1,SBAT Version,sbat,1,x\n")
}

func chains() []chain {
	var all []chain
	for _, v := range []string{"252", "254", "257"} {
		all = append(all, chain{name: "stub " + v, files: func(k *kit) map[string][]byte {
			return map[string][]byte{"EFI/BOOT/BOOTX64.EFI": k.uki(v)}
		}}, chain{name: "systemd-boot " + v, files: func(k *kit) map[string][]byte {
			return map[string][]byte{"EFI/BOOT/BOOTX64.EFI": k.parts["loader "+v], "EFI/Linux/chain.efi": k.uki(v), "loader/loader.conf": []byte("timeout 0\n")}
		}})
		if v == "252" {
			continue
		}
		all = append(all, chain{name: "addons " + v, files: func(k *kit) map[string][]byte {
			return map[string][]byte{
				"EFI/BOOT/BOOTX64.EFI":                     k.ukiWith(v, consoleArgs+"first"),
				"EFI/BOOT/BOOTX64.EFI.extra.d/b.addon.efi": k.addon(v, "own.b roothash="+k.rootHash),
				"EFI/BOOT/BOOTX64.EFI.extra.d/A.addon.efi": k.addon(v, " own.a  x "),
				"loader/addons/z.addon.efi":                k.addon(v, "global.z"),
				"loader/addons/C.addon.efi":                k.addon(v, "global.c\n"),
			}
		}}, chain{name: "systemd-boot addons " + v, files: func(k *kit) map[string][]byte {
			return map[string][]byte{
				"EFI/BOOT/BOOTX64.EFI":                    k.parts["loader "+v],
				"EFI/Linux/chain.efi":                     k.ukiWith(v, consoleArgs+"first"),
				"EFI/Linux/chain.efi.extra.d/b.addon.efi": k.addon(v, "roothash="+k.rootHash),
				"loader/addons/z.addon.efi":               k.addon(v, "global.z"),
			}
		}})
	}
	const csv = "\ufeffshimx64.efi,redhat,\\EFI\\Linux\\chain.efi ,UKI bootentry\n"
	all = append(all, chain{name: "shim csv", o: Options{Resets: true}, files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                         k.parts["shim"],
			"EFI/BOOT/fbx64.efi":                           k.parts["fallback"],
			"EFI/redhat/shimx64.efi":                       k.parts["shim"],
			"EFI/redhat/BOOTX64.CSV":                       utf16Text(csv),
			"EFI/Linux/chain.efi":                          k.ukiWith("257", consoleArgs+"first"),
			"EFI/Linux/chain.efi.extra.d/verity.addon.efi": k.addon("257", "roothash="+k.rootHash+" systemd.volatile=overlay"),
		}
	}}, chain{name: "shim", files: func(k *kit) map[string][]byte {
		return map[string][]byte{
			"EFI/BOOT/BOOTX64.EFI":                          k.parts["shim"],
			"EFI/BOOT/grubx64.efi":                          k.ukiWith("257", consoleArgs+"first"),
			"EFI/BOOT/grubx64.efi.extra.d/verity.addon.efi": k.addon("257", "roothash="+k.rootHash+" systemd.volatile=overlay"),
		}
	}})
	return all
}

func utf16Text(s string) []byte {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r), byte(r>>8))
	}
	return b
}

// TestChains boots every chain, and compares what the TPM measured with what
// is predicted of the disk's bytes.
func TestChains(t *testing.T) {
	k := &kit{t: t, parts: packages(t), rootHash: chainRootHash(t)}
	k.initrd = chainInitrd(t, k.parts["busybox"])
	for _, c := range chains() {
		t.Run(c.name, func(t *testing.T) {
			o := c.o
			o.Disk, o.Format = chainDisk(t, c.files(k)), "raw"
			o.WaitFor = []*regexp.Regexp{regexp.MustCompile("^" + logEnd)}
			r, err := Run(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("booted in %v", r.Time)
			if dir := os.Getenv("KEEP"); dir != "" {
				os.WriteFile(dir+"/"+strings.ReplaceAll(c.name, " ", "-")+".log", eventLog(t, r.Serial), 0o600)
			}
			disk, err := os.Open(o.Disk)
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			predicted, err := measure.Disk(disk, chainDiskSize)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range measure.Compare(predicted, r.Takeover) {
				t.Error(m)
			}
		})
	}
}

// eventLog is the log of the firmware's events that the machine printed.
func eventLog(t *testing.T, console string) []byte {
	t.Helper()
	_, text, ok := strings.Cut(console, logStart)
	text, _, ok2 := strings.Cut(text, logEnd)
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if !ok || !ok2 || err != nil {
		t.Fatalf("no event log on the console: %v", err)
	}
	return b
}
