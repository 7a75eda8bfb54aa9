package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// visible is a folder without the names that begin with a dot, among them the private key, and without listings.
type visible struct{ dir http.Dir }

// Open implements http.FileSystem.
func (v visible) Open(name string) (http.File, error) {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
	}
	f, err := v.dir.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// handler serves the repository in dir: plain files, with ranges. Requests are logged to w unless it is nil.
func handler(dir string, w io.Writer) http.Handler {
	files := http.FileServer(visible{http.Dir(dir)})
	if w == nil {
		return files
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, rq *http.Request) {
		s := &statusWriter{ResponseWriter: rw, status: http.StatusOK}
		files.ServeHTTP(s, rq)
		fmt.Fprintf(w, "%s %s %s %d %d\n", rq.RemoteAddr, rq.Method, rq.URL.EscapedPath(), s.status, s.bytes)
	})
}

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (s *statusWriter) Write(b []byte) (int, error) {
	n, err := s.ResponseWriter.Write(b)
	s.bytes += int64(n)
	return n, err
}

// serve serves dir until ctx ends. It says where as soon as it listens.
func serve(ctx context.Context, dir, listen string, verbose bool, stderr io.Writer) error {
	if st, err := os.Stat(dir); err != nil {
		return err
	} else if !st.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log := stderr
	if !verbose {
		log = nil
	}
	s := &http.Server{Handler: handler(dir, log), ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintf(stderr, "debrepo: serving %s on http://%s/\n", dir, l.Addr())
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}
