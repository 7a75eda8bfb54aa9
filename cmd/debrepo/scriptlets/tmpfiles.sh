# Files and directories that packages declare, but for those that live only while the system runs.
# It needs /proc to open files safely.
[ -x /usr/bin/systemd-tmpfiles ] || exit 0
[ -e /proc/self/fd ] || exit 0
SYSTEMD_LOG_LEVEL=warning systemd-tmpfiles --create --exclude-prefix=/dev --exclude-prefix=/proc --exclude-prefix=/run --exclude-prefix=/sys --exclude-prefix=/tmp
status=$?
# 65: a line was ignored, as those with the machine id are while there is none.
[ $status -eq 65 ] || exit $status
