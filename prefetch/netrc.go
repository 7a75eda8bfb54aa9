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

// maxNetrc is the size in bytes above which the file is refused.
const maxNetrc = 1 << 20

// readNetrc reads a .netrc file as curl does: ftp(1)'s form, with words that
// may be in double quotes. Macros are passed over.
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
	if len(b) > maxNetrc {
		return nil, fmt.Errorf("reading passwords: %s: %d bytes, want at most %d", path, len(b), maxNetrc)
	}
	return parseNetrc(string(b)), nil
}

// parseNetrc reads the entries. The first of a host counts, and none after
// "default", which is all hosts.
func parseNetrc(s string) netrc {
	words := netrcWords(s)
	rc := make(netrc)
	name, known := "", false
	for i := 0; i < len(words); i++ {
		key := words[i]
		if _, ended := rc[""]; key == "machine" && ended {
			break
		}
		if key == "default" {
			name, known = "", true
			rc[name] = netrcLogin{}
			continue
		}
		if i+1 == len(words) {
			break
		}
		e := rc[name]
		switch key {
		case "machine":
			i++
			name = strings.ToLower(words[i])
			_, twice := rc[name]
			known = !twice
			if known {
				rc[name] = netrcLogin{}
			}
			continue
		case "login":
			i++
			e.login = words[i]
		case "password":
			i++
			e.password = words[i]
		case "account":
			i++
		}
		if known {
			rc[name] = e
		}
	}
	return rc
}

// netrcWords are the words of the file, without comments and macros; a macro
// ends with an empty line.
func netrcWords(s string) []string {
	var words []string
	macro := false
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		if macro = macro && line != ""; macro || strings.HasPrefix(line, "#") {
			continue
		}
		for line != "" {
			var word string
			if word, line = netrcWord(line); word == "macdef" {
				macro = true
				break
			}
			words = append(words, word)
			line = strings.TrimSpace(line)
		}
	}
	return words
}

// netrcWord cuts the first word off a line: one in double quotes may have
// spaces, and \", \n, \r and \t in it.
func netrcWord(line string) (word, rest string) {
	if !strings.HasPrefix(line, `"`) {
		if k := strings.IndexAny(line, " \t"); k >= 0 {
			return line[:k], line[k:]
		}
		return line, ""
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '"':
			return b.String(), line[i+1:]
		case c == '\\' && i+1 < len(line):
			i++
			if k := strings.IndexByte("nrt", line[i]); k >= 0 {
				b.WriteByte("\n\r\t"[k])
				continue
			}
			c = line[i]
		}
		b.WriteByte(c)
	}
	return b.String(), ""
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
