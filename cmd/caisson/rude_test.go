package main

import (
	"bytes"
	"io"
	"log"
	"net"
	"sync"
	"testing"
	"time"
)

// lines is a log that may be written to from many goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// What a server sends unasked is not told to the user.
func TestUnsolicited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\nbuy now\r\n")
			time.Sleep(20 * time.Millisecond)
			c.Close()
		}
	}()
	var said lines
	log.SetOutput(&said)
	if code := run([]string{"resolve", "--arch", "x86_64", "--releasever", "9", "--repo", "rude=http://" + l.Addr().String() + "/", "bash"}); code == exitOK {
		t.Error("it found something")
	}
	time.Sleep(100 * time.Millisecond)
	said.mu.Lock()
	defer said.mu.Unlock()
	if said.b.Len() > 0 {
		t.Errorf("said: %s", &said.b)
	}
}
