package prefetch

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// netrc is passwords by host; the entry of "" is the default's.
type netrc map[string]netrcLogin

type netrcLogin struct{ login, password string }

// readNetrc reads a .netrc file as ftp(1) describes it, without macros.
func readNetrc(path string) (netrc, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading passwords: %w", err)
	}
	return parseNetrc(string(b)), nil
}

func parseNetrc(s string) netrc {
	var fields []string
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			fields = append(fields, strings.Fields(line)...)
		}
	}
	rc := make(netrc)
	name, known := "", false
	for i := 0; i < len(fields); i++ {
		key := fields[i]
		if key == "default" {
			name, known = "", true
			rc[name] = netrcLogin{}
			continue
		}
		if key == "macdef" || i+1 == len(fields) {
			break
		}
		i++
		switch e := rc[name]; {
		case key == "machine":
			name = strings.ToLower(fields[i])
			_, twice := rc[name]
			known = !twice // the first entry of a host counts
			if known {
				rc[name] = netrcLogin{}
			}
		case key == "login" && known:
			e.login = fields[i]
			rc[name] = e
		case key == "password" && known:
			e.password = fields[i]
			rc[name] = e
		}
	}
	return rc
}

// find is the login for an address; none by anything but https.
func (rc netrc) find(u *url.URL) (login, password string, ok bool) {
	if u.Scheme != "https" {
		return "", "", false
	}
	e, ok := rc[strings.ToLower(u.Hostname())]
	if !ok {
		e, ok = rc[""]
	}
	return e.login, e.password, ok && e.password != ""
}
