package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"caisson/lock/digest"
)

// message is a line of JSON that the machine writes to the port named portName.
type message struct {
	// Out is a line of what the program in the machine wrote to its standard output.
	Out string `json:"out,omitempty"`
	// Exit is there once, as the last: how the program ended, or what went wrong
	// before it could be started.
	Exit *exit `json:"exit,omitempty"`
	// A message without either says that the machine is alive.
}

// exit is the end of the program in the machine.
type exit struct {
	// Error is the machine's own; then the program did not run to its end.
	Error string `json:"error,omitempty"`
	Code  int    `json:"code"`
	// Said is what it wrote to its standard error.
	Said string `json:"said,omitempty"`
	// Result is what there is on the disk of that name, where Code is 0.
	Result *written `json:"result,omitempty"`
}

// written is a number of bytes, and their digest.
type written struct {
	Size   int64         `json:"size"`
	SHA256 digest.Digest `json:"sha256"`
}

// maxMessage is the longest line that is read.
const maxMessage = 4 << 20

// listener takes what a machine writes to its port, and tells of each message. It never
// fails: a machine that writes what is none is noted, and not listened to any more.
type listener struct {
	tell func(message)
	line []byte
	err  error
}

func (l *listener) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0 && l.err == nil; {
		part, after, complete := bytes.Cut(rest, []byte("\n"))
		l.line = append(l.line, part...)
		rest = after
		switch {
		case len(l.line) > maxMessage:
			l.err = fmt.Errorf("the machine wrote a line of more than %d bytes", maxMessage)
		case complete:
			var m message
			if err := json.Unmarshal(l.line, &m); err != nil {
				l.err = fmt.Errorf("the machine wrote what is no message: %w", err)
			} else {
				l.tell(m)
			}
			l.line = l.line[:0]
		}
	}
	return len(b), nil
}

// send writes a message.
func send(w io.Writer, m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return errors.New("a message is too long")
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
