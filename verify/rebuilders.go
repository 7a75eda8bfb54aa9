package verify

import (
	"fmt"
	"slices"
	"strings"

	"caisson/lock/digest"
)

// Opinion is what a signed statement says of an image: a test result or a
// verification summary, its signature looked at by whoever made the Opinion.
type Opinion struct {
	// File is where the statement is.
	File string `json:"file"`
	// Signer is the hint of the key that signed, as bundles have it; Key is the
	// name by which that key is trusted. Both are empty where the signature is
	// not good by a trusted key, and Problem says why.
	Signer  string `json:"signer,omitempty"`
	Key     string `json:"key,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Role is the one that the signer says it has, "verifier".
	Role  string        `json:"role,omitempty"`
	Image digest.Digest `json:"image,omitzero"`
	Lock  digest.Digest `json:"lock,omitzero"`
	// Verdict is the signer's, Rebuilt whether it rests on a rebuild of the
	// signer's own.
	Verdict Verdict `json:"verdict,omitempty"`
	Rebuilt bool    `json:"rebuilt,omitempty"`
	Time    string  `json:"time,omitempty"` // RFC 3339
}

// Rebuilders are the opinions of others that a verdict is to rest on.
type Rebuilders struct {
	// Want is how many distinct signers have to say that a rebuild of theirs was
	// identical.
	Want     int
	Opinions []Opinion
}

// roleVerifier is the role of those whose verdicts count: a builder's word
// about its own image is none that is independent.
const roleVerifier = "verifier"

// askRebuilders counts the signers that say, of the same image and the same lock,
// that their own rebuild was identical.
//
// One key is one signer, whatever number of statements it signed. A signer
// that is trusted and says "different" refuses the image, and so does one
// that says both: the same lock cannot give the same bytes and others, so
// somebody has to look, and more who agree do not make it go away. "Not verified"
// is no opinion. "Equivalent" does not count: it rests on exceptions that
// somebody else made.
func (v *verification) askRebuilders() {
	const name = "rebuilders"
	if v.Rebuilders == nil {
		v.check(name, NotAsked, "nobody else's verdict was asked for; --rebuilders does")
		return
	}
	v.report.Rebuilders = v.Rebuilders.Opinions
	t := tally{yes: map[string]string{}, no: map[string]string{}}
	for i := range v.Rebuilders.Opinions {
		t.add(&v.Rebuilders.Opinions[i], v.report)
	}
	want := v.Rebuilders.Want
	agree := sortedValues(t.yes)
	said := fmt.Sprintf("%d of %d wanted signers say that their rebuild is identical", len(agree), want)
	if len(agree) > 0 {
		said += ": " + strings.Join(agree, ", ")
	}
	if len(t.ignored) > 0 {
		said += "; not counted: " + strings.Join(t.ignored, "; ")
	}
	switch {
	case len(t.no) > 0:
		v.check(name, Refused, "%s, who is trusted, says that the image is different; %s", strings.Join(sortedValues(t.no), " and "), said)
	case len(agree) < want:
		v.check(name, NotChecked, "%s", said)
	default:
		v.check(name, Passed, "%s", said)
	}
}

// tally counts signers, by key.
type tally struct {
	yes, no map[string]string // hint of the key: name
	ignored []string
}

func (t *tally) add(o *Opinion, r *Report) {
	if why := o.notAbout(r); why != "" {
		t.ignored = append(t.ignored, fmt.Sprintf("%s (%s)", o.File, why))
		return
	}
	switch o.Verdict {
	case Identical:
		t.yes[o.Signer] = o.Key
	case Different:
		t.no[o.Signer] = o.Key
	default:
		t.ignored = append(t.ignored, fmt.Sprintf("%s (%s says %s)", o.File, o.Key, o.Verdict))
	}
	if _, both := t.no[o.Signer]; both {
		delete(t.yes, o.Signer)
	}
}

// notAbout says why an opinion says nothing of this image.
func (o *Opinion) notAbout(r *Report) string {
	switch {
	case o.Problem != "":
		return o.Problem
	case o.Signer == "":
		return "not signed by a trusted key"
	case o.Role != roleVerifier:
		return fmt.Sprintf("%s signed as %s, not as %s", o.Key, o.Role, roleVerifier)
	case o.Image != r.Image.SHA256:
		return fmt.Sprintf("%s speaks of another image, %s", o.Key, o.Image)
	case o.Lock != r.Lock:
		return fmt.Sprintf("%s speaks of another lock, %s", o.Key, o.Lock)
	case o.Verdict == Identical && !o.Rebuilt:
		return o.Key + " did not rebuild the image"
	}
	return ""
}

func sortedValues(m map[string]string) []string {
	var out []string
	for _, name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
