module caisson-agent

go 1.25.0

require (
	github.com/coreos/go-systemd/v22 v22.5.0
	github.com/moby/sys/mountinfo v0.7.2
	golang.org/x/sys v0.40.0
)
