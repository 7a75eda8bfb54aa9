// Package filecap turns the text form of a file's capabilities into the value
// of the extended attribute that the kernel reads.
//
// Limits: the names of Linux 6.1; revision 2 of the attribute, without a user
// namespace's root.
package filecap

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// capNames are Linux's capabilities in the order of their numbers
// (include/uapi/linux/capability.h).
var capNames = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// Xattr is the name of the attribute that holds a file's capabilities.
const Xattr = "security.capability"

const (
	capRevision2 = 0x02000000 // VFS_CAP_REVISION_2
	capEffective = 1          // VFS_CAP_FLAGS_EFFECTIVE
)

// Parse turns text as cap_from_text(3) and RPMTAG_FILECAPS have it into
// the value of security.capability: struct vfs_cap_data, revision 2.
func Parse(text string) ([]byte, error) {
	var eff, perm, inh uint64
	for _, clause := range strings.Fields(text) {
		i := strings.IndexAny(clause, "=+-")
		if i < 0 {
			return nil, fmt.Errorf("capabilities %q: clause %q has none of '=', '+', '-'", text, clause)
		}
		set, err := capSet(clause[:i])
		if err != nil {
			return nil, fmt.Errorf("capabilities %q: %w", text, err)
		}
		for rest := clause[i:]; rest != ""; {
			op, flags := rest[0], rest[1:]
			if j := strings.IndexAny(flags, "=+-"); j >= 0 {
				flags, rest = flags[:j], flags[j:]
			} else {
				rest = ""
			}
			if op == '=' {
				eff, perm, inh = eff&^set, perm&^set, inh&^set
			}
			for _, f := range flags {
				word, ok := map[rune]*uint64{'e': &eff, 'p': &perm, 'i': &inh}[f]
				if !ok {
					return nil, fmt.Errorf("capabilities %q: %q is none of e, i, p", text, f)
				}
				if op == '-' {
					*word &^= set
				} else {
					*word |= set
				}
			}
		}
	}
	magic := uint32(capRevision2)
	if eff != 0 {
		magic |= capEffective
	}
	b := binary.LittleEndian.AppendUint32(nil, magic)
	for _, half := range []uint{0, 32} {
		b = binary.LittleEndian.AppendUint32(b, uint32(perm>>half)) //nolint:gosec // the lower half is meant
		b = binary.LittleEndian.AppendUint32(b, uint32(inh>>half))  //nolint:gosec // the lower half is meant
	}
	return b, nil
}

// capSet is the bits of a comma-separated list; none named, or "all", is all.
func capSet(list string) (uint64, error) {
	if list == "" || list == "all" {
		return 1<<len(capNames) - 1, nil
	}
	var set uint64
	for name := range strings.SplitSeq(list, ",") {
		i := indexOf(strings.TrimPrefix(strings.ToLower(name), "cap_"))
		if i < 0 {
			return 0, fmt.Errorf("%q is no capability", name)
		}
		set |= 1 << i
	}
	return set, nil
}

func indexOf(name string) int {
	for i, n := range capNames {
		if n == name {
			return i
		}
	}
	return -1
}
