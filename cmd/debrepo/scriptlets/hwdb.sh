# The compiled hardware database.
command -v systemd-hwdb >/dev/null || exit 0
exec systemd-hwdb update --usr
