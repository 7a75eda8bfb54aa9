package main

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"caisson/attest"
	"caisson/attest/s3"
)

// pushS3 puts the files of an output folder into a bucket.
func pushS3(ctx context.Context, ui *ui, o *pushOptions, p *attest.Package, address string) error {
	if o.results != "" || o.from != "" {
		return usageError{errors.New("a bucket is no registry: --results and --from do not go with it")}
	}
	began := time.Now()
	outputs, err := p.Files(ctx, o.out)
	if err != nil {
		return err
	}
	var files []s3.File
	for _, f := range outputs {
		files = append(files, s3.File{Name: f.Name, Path: filepath.Join(o.out, filepath.FromSlash(f.Name)), Type: contentType(f.Name), Size: f.Size, SHA256: f.SHA256})
	}
	opts := s3.Options{Endpoint: o.endpoint, Region: o.region}
	var end func()
	opts.Progress, end = ui.transfer("send")
	done, err := s3.Push(ctx, address, files, opts)
	end()
	if err != nil {
		return storeError(err)
	}
	ui.stage("%s sent (%s), %d were there, %s", count(done.Sent, "file"), size(done.Bytes), done.Files-done.Sent, took(began))
	for _, f := range files {
		ui.print("%s/%s", strings.TrimSuffix(address, "/"), f.Name)
	}
	return nil
}

func contentType(name string) string {
	switch filepath.Ext(name) {
	case ".json":
		return "application/json"
	case ".html":
		return "text/html; charset=utf-8"
	case ".log", ".cmdline":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// storeError says what to do where a store did not do as it was asked.
func storeError(err error) error {
	var e *s3.Error
	if errors.As(err, new(*s3.AddressError)) {
		return usageError{err}
	}
	if !errors.As(err, &e) {
		return err
	}
	hint := "run it again: what has been sent is not sent twice"
	switch e.Status {
	case http.StatusForbidden, http.StatusUnauthorized:
		hint = "credentials are looked for as the AWS CLI does: AWS_ACCESS_KEY_ID, AWS_PROFILE, ~/.aws; they have to allow GetObject, PutObject and AbortMultipartUpload there"
	case http.StatusNotFound:
		hint = "the bucket has to be there; a store other than Amazon's is named by --endpoint or AWS_ENDPOINT_URL_S3"
	case http.StatusBadRequest:
		hint = ""
	}
	return &codeError{err, exitError, hint}
}
