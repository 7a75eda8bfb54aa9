package solve

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
)

// oracle is dnf's library, answering questions by testdata/ask-dnf.py.
type oracle struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// newOracle starts dnf's library, which ends with the test.
func newOracle(t *testing.T) *oracle {
	t.Helper()
	needTool(t, "dnf")
	needTool(t, "rpmdb")
	cmd := exec.Command("/usr/bin/python3", "testdata/ask-dnf.py")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &oracle{in, bufio.NewReader(out)}
}

// ask returns dnf's answer to each request of a world: a list of packages, or
// the text of a problem.
func (o *oracle) ask(t *testing.T, w *world) []json.RawMessage {
	t.Helper()
	if err := json.NewEncoder(o.in).Encode(w); err != nil {
		t.Fatal(err)
	}
	line, err := o.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var answers []json.RawMessage
	if err := json.Unmarshal(line, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}
