# The accounts that packages declare.
[ -x /usr/bin/systemd-sysusers ] || exit 0
SYSTEMD_LOG_LEVEL=warning exec systemd-sysusers
