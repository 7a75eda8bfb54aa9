# The accounts that packages declare.
command -v systemd-sysusers >/dev/null || exit 0
exec systemd-sysusers
