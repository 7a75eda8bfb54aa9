package gittree

import (
	"bytes"
	"strings"
)

// Signed splits a commit or tag object into what is signed and the signature
// over it, as git does: a commit's is its gpgsig header (gpgsig-sha256 where
// the object ids are SHA-256), a tag's follows its message. Where there is no
// signature it returns nil for that.
func Signed(raw []byte, isTag bool) (payload, signature []byte) {
	own := "gpgsig "
	if line, _, _ := bytes.Cut(raw, []byte("\n")); len(line) > 60 { // "tree " or "object " and 64 digits
		own = "gpgsig-sha256 "
	}
	if !isTag {
		return splitHeader(raw, own)
	}
	at := -1
	for off := 0; off < len(raw); {
		line, _, _ := bytes.Cut(raw[off:], []byte("\n"))
		if beginsSignature(string(line)) {
			at = off
		}
		off += len(line) + 1
	}
	if at < 0 {
		return raw, nil
	}
	payload, _ = splitHeader(raw[:at], own) // the other algorithm's is a header here
	return payload, raw[at:]
}

// beginsSignature knows the first lines of the signatures that git makes.
func beginsSignature(line string) bool {
	for _, kind := range []string{"PGP SIGNATURE", "PGP MESSAGE", "SSH SIGNATURE", "SIGNED MESSAGE"} {
		if strings.HasPrefix(line, "-----BEGIN "+kind+"-----") {
			return true
		}
	}
	return false
}

// splitHeader takes the signatures out of an object's header and returns the
// one that is called own.
func splitHeader(raw []byte, own string) (payload, signature []byte) {
	inOwn, inOther := false, false
	for len(raw) > 0 && raw[0] != '\n' {
		line := raw
		if i := bytes.IndexByte(raw, '\n'); i >= 0 {
			line = raw[:i+1]
		}
		raw = raw[len(line):]
		switch {
		case line[0] == ' ' && inOwn:
			signature = append(signature, line[1:]...)
			continue
		case line[0] == ' ' && inOther:
			continue
		}
		var value []byte
		value, inOwn = bytes.CutPrefix(line, []byte(own))
		inOther = !inOwn && bytes.HasPrefix(line, []byte("gpgsig"))
		switch {
		case inOwn:
			signature = append(signature, value...)
		case !inOther:
			payload = append(payload, line...)
		}
	}
	return append(payload, raw...), signature
}
