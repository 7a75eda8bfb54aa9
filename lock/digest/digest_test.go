package digest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestText(t *testing.T) {
	d := Of(nil)
	if d.String() != empty || d.Hex() != empty[7:] || d.IsZero() {
		t.Errorf("got %s", d)
	}
	if got, err := Parse(empty); err != nil || got != d {
		t.Errorf("got %s, %v", got, err)
	}
	var v struct{ A, B Digest }
	v.A = d
	b, err := json.Marshal(v)
	if want := `{"A":"` + empty + `","B":""}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	v.A, v.B = Digest{}, d
	if err := json.Unmarshal(b, &v); err != nil || v.A != d || !v.B.IsZero() {
		t.Errorf("got %+v, %v", v, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"x"}`), &v); err == nil {
		t.Error("x was accepted")
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", `digest "": want "sha256:" and 64 hex digits`},
		{empty[7:], `digest "` + empty[7:] + `": want "sha256:" and 64 hex digits`},
		{"sha512:" + empty[7:], "want \"sha256:\" and"},
		{"sha256:abc", `digest "abc": want 64 lower-case hex digits`},
		{strings.Replace(empty, "e3b0", "E3b0", 1), "want 64 lower-case hex digits"},
		{strings.Replace(empty, "e3b0", "g3b0", 1), "invalid byte: U+0067 'g'"},
		{"sha256:" + strings.Repeat("0", 64), "only zeros stand for no digest"},
		{empty + "\n", "want 64 lower-case hex digits"},
	} {
		if d, err := Parse(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) || !d.IsZero() {
			t.Errorf("%q: got %s, %v, want %q", tt.text, d, err, tt.want)
		}
	}
}

func TestReader(t *testing.T) {
	const text = "some text"
	if d, n, err := Reader(iotest.HalfReader(strings.NewReader(text))); err != nil || n != int64(len(text)) || d != Of([]byte(text)) {
		t.Errorf("got %s, %d, %v", d, n, err)
	}
	broken := errors.New("broken")
	if d, _, err := Reader(iotest.ErrReader(broken)); !errors.Is(err, broken) || !d.IsZero() {
		t.Errorf("got %s, %v", d, err)
	}
}
