# The accounts that packages declare.
command -v systemd-sysusers >/dev/null || exit 0
SYSTEMD_LOG_LEVEL=warning exec systemd-sysusers
