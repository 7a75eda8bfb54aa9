# The compiled message catalogue of the journal.
command -v journalctl >/dev/null || exit 0
exec journalctl --update-catalog
