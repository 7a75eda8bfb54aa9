package sandbox

import (
	"fmt"
	"strings"
)

// explain adds to err, a refusal to make namespaces or mounts, the kernel settings
// that forbid them to ordinary users, as far as read finds any.
func explain(err error, read func(name string) ([]byte, error)) error {
	for _, s := range []struct{ name, forbids, advice string }{
		{"kernel/unprivileged_userns_clone", "0", "set it to 1"},
		{"user/max_user_namespaces", "0", "set it to 10000 or so"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "set it to 0, or give this program an AppArmor profile that allows userns"},
	} {
		b, rerr := read("/proc/sys/" + s.name)
		if rerr == nil && strings.TrimSpace(string(b)) == s.forbids {
			name := strings.ReplaceAll(s.name, "/", ".")
			return fmt.Errorf("%w: this kernel has %s=%s, which forbids user namespaces: %s (sysctl -w)", err, name, s.forbids, s.advice)
		}
	}
	if b, rerr := read("/proc/self/status"); rerr == nil && strings.Contains(string(b), "\nSeccomp:\t2\n") {
		return fmt.Errorf("%w (this process runs under a seccomp filter, as in a container, which can forbid user namespaces: "+
			"the profile, securityContext.seccompProfile of a Kubernetes pod, has to allow unshare, and clone with CLONE_NEWUSER)", err)
	}
	return fmt.Errorf("%w (a container's own capabilities, or a security module, can forbid user namespaces)", err)
}
