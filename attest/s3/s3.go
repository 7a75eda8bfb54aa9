// Package s3 puts files into a bucket of Amazon S3, or of a store that speaks
// its protocol.
//
// # Promise
//
// Each file becomes the object PREFIX/NAME. It is sent with its SHA-256, one for
// each part of a large one, which the store compares with what it got; when it is
// there the store is asked for its size and for the digest, which is in the
// object's metadata ("sha256", hex). What is there with the same size and
// digest is not sent again. The last file is written when all others are there,
// so that who waits for it finds the others. A file that is not what it was
// said to be is not sent. An upload in parts that fails is taken back.
//
// Credentials, region, proxy, certificates and the address of another store
// are found where the AWS CLI finds them: AWS_ACCESS_KEY_ID and its like,
// AWS_PROFILE, the files in ~/.aws, web identity tokens, the machine's own
// role, AWS_ENDPOINT_URL_S3.
//
// # Limits
//
// Files of at most 10,000 parts, which is 5 TiB; four parts are sent at the same
// time, and none is held in memory. What else is under the prefix stays.
package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"caisson/lock/digest"
	"caisson/prefetch"
)

// Limits of multipart uploads (Amazon S3 User Guide, "Multipart upload limits").
const (
	minPart  = 32 << 20 // bytes; the protocol's own limit is 5 MiB
	maxParts = 10_000
	parallel = 4
)

// sumKey is the metadata that has an object's SHA-256.
const sumKey = "sha256"

// File is a file to put there.
type File struct {
	Name   string // with slashes, below the prefix
	Path   string
	Type   string // of its content
	Size   int64
	SHA256 digest.Digest
}

// Options are Push's. The zero value will do.
type Options struct {
	// Endpoint is the address of another store than Amazon's, in which buckets
	// are a part of the path; empty for what the environment says.
	Endpoint string
	Region   string // empty for what the environment says, or us-east-1
	Progress prefetch.Progress
}

// Pushed says what Push did.
type Pushed struct {
	Files, Sent int
	Bytes       int64 // of those sent
}

// Error is what a store did not do.
type Error struct {
	Where  string // s3://BUCKET/KEY
	Status int    // HTTP's, 0 where there was no answer
	Err    error
}

func (e *Error) Error() string {
	var api smithy.APIError
	text := e.Err.Error()
	switch {
	case e.Status == 0:
	case !errors.As(e.Err, &api):
		text = fmt.Sprintf("the store answers %d %s", e.Status, http.StatusText(e.Status))
	default:
		text = strings.TrimSuffix(fmt.Sprintf("the store answers %d %s: %s", e.Status, api.ErrorCode(), api.ErrorMessage()), ": ")
	}
	return e.Where + ": " + prefetch.RegistryErrorText(errors.New(text))
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// AddressError says that an address is not s3://BUCKET/PREFIX.
type AddressError struct{ Address string }

func (e *AddressError) Error() string {
	return fmt.Sprintf("%q is not s3://BUCKET[/PREFIX]", e.Address)
}

// parse reads s3://BUCKET[/PREFIX].
func parse(address string) (bucket, prefix string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Port() != "" {
		return "", "", &AddressError{address}
	}
	prefix = strings.Trim(u.Path, "/")
	if strings.Contains("/"+prefix+"/", "/../") || strings.Contains(prefix, "//") {
		return "", "", &AddressError{address}
	}
	return u.Host, prefix, nil
}

// Push puts files at s3://BUCKET[/PREFIX].
func Push(ctx context.Context, address string, files []File, o Options) (Pushed, error) {
	bucket, prefix, err := parse(address)
	if err != nil {
		return Pushed{}, err
	}
	load := []func(*config.LoadOptions) error{config.WithRetryMaxAttempts(5)}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return Pushed{}, fmt.Errorf("reading the configuration for S3: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	p := &pusher{bucket: bucket, prefix: prefix, tell: o.Progress, last: time.Now()}
	p.client = s3.NewFromConfig(cfg, func(so *s3.Options) {
		// The checksums are given: no other is to be computed.
		so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		if o.Endpoint != "" {
			so.BaseEndpoint = aws.String(o.Endpoint)
		}
		so.UsePathStyle = o.Endpoint != "" || so.BaseEndpoint != nil || strings.Contains(bucket, ".")
	})
	p.event.Total, p.done.Files = len(files), len(files)
	for _, f := range files {
		p.event.TotalBytes += f.Size
	}
	for i := range files {
		if err := p.file(ctx, &files[i]); err != nil {
			if ctx.Err() != nil {
				return p.done, ctx.Err()
			}
			return p.done, err
		}
	}
	return p.done, nil
}

// pusher is one run of Push.
type pusher struct {
	client         *s3.Client
	bucket, prefix string
	done           Pushed

	mu    sync.Mutex
	event prefetch.Event
	last  time.Time
	tell  prefetch.Progress
}

// moved counts bytes, and tells of them at most ten times a second.
func (p *pusher) moved(n int64, done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.event.Bytes += n
	p.event.Done += done
	if p.tell != nil && (p.event.Done >= p.event.Total || time.Since(p.last) > 100*time.Millisecond) {
		p.last = time.Now()
		p.tell(p.event)
	}
}

// failed makes an Error.
func (p *pusher) failed(key string, err error) error {
	e := &Error{Where: "s3://" + p.bucket + "/" + key, Err: err}
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		e.Status = answer.HTTPStatusCode()
	}
	return e
}

// file puts one file there, unless it is.
func (p *pusher) file(ctx context.Context, f *File) error {
	key := strings.TrimPrefix(p.prefix+"/"+f.Name, "/")
	have, err := p.has(ctx, key, f)
	if err != nil {
		return p.failed(key, err)
	}
	if have {
		p.moved(f.Size, 1)
		return nil
	}
	in, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	got, n, err := digest.Reader(in)
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.Path, err)
	}
	if got != f.SHA256 || n != f.Size {
		return fmt.Errorf("%s has %d bytes and is %s, want %d bytes and %s", f.Path, n, got, f.Size, f.SHA256)
	}
	if f.Size > minPart {
		err = p.parts(ctx, key, f, in)
	} else {
		err = p.whole(ctx, key, f, in)
	}
	if err == nil {
		if have, err = p.has(ctx, key, f); err == nil && !have {
			err = errors.New("the store took it, and has something else")
		}
	}
	if err != nil {
		return p.failed(key, err)
	}
	p.done.Sent++
	p.done.Bytes += f.Size
	p.moved(0, 1)
	return nil
}

// has tells whether an object is there that says to be the file.
func (p *pusher) has(ctx context.Context, key string, f *File) (bool, error) {
	head, err := p.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &p.bucket, Key: &key})
	if err != nil {
		var answer *awshttp.ResponseError
		if errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusNotFound {
			return false, nil
		}
		return false, err
	}
	return aws.ToInt64(head.ContentLength) == f.Size && head.Metadata[sumKey] == f.SHA256.Hex(), nil
}

func encoded(sum []byte) *string { return aws.String(base64.StdEncoding.EncodeToString(sum)) }

// whole sends a file at once.
func (p *pusher) whole(ctx context.Context, key string, f *File, in io.ReaderAt) error {
	_, err := p.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &p.bucket, Key: &key, Body: io.NewSectionReader(in, 0, f.Size), ContentLength: &f.Size, ContentType: &f.Type,
		ChecksumSHA256: encoded(f.SHA256[:]), Metadata: map[string]string{sumKey: f.SHA256.Hex()},
	})
	if err == nil {
		p.moved(f.Size, 0)
	}
	return err
}

// parts sends a file in parts.
func (p *pusher) parts(ctx context.Context, key string, f *File, in io.ReaderAt) (err error) {
	size := max(minPart, (f.Size+maxParts-1)/maxParts)
	made, err := p.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &p.bucket, Key: &key, ContentType: &f.Type, ChecksumAlgorithm: types.ChecksumAlgorithmSha256, Metadata: map[string]string{sumKey: f.SHA256.Hex()},
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil { // also where the context has ended
			abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			_, abortErr := p.client.AbortMultipartUpload(abort, &s3.AbortMultipartUploadInput{Bucket: &p.bucket, Key: &key, UploadId: made.UploadId})
			if abortErr != nil {
				err = fmt.Errorf("%w (and its parts are still there, upload %s)", err, aws.ToString(made.UploadId))
			}
		}
	}()
	done := make([]types.CompletedPart, (f.Size+size-1)/size)
	sums := make([][]byte, len(done))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range done {
		g.Go(func() error {
			part := io.NewSectionReader(in, int64(i)*size, min(size, f.Size-int64(i)*size))
			h := sha256.New()
			if _, err := io.Copy(h, part); err != nil {
				return err
			}
			sums[i] = h.Sum(nil)
			if _, err := part.Seek(0, io.SeekStart); err != nil {
				return err
			}
			number := int32(i + 1)
			sent, err := p.client.UploadPart(gctx, &s3.UploadPartInput{Bucket: &p.bucket, Key: &key, UploadId: made.UploadId, PartNumber: &number,
				Body: part, ContentLength: aws.Int64(part.Size()), ChecksumSHA256: encoded(sums[i])})
			if err != nil {
				return err
			}
			done[i] = types.CompletedPart{PartNumber: &number, ETag: sent.ETag, ChecksumSHA256: encoded(sums[i])}
			p.moved(part.Size(), 0)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	end, err := p.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &p.bucket, Key: &key, UploadId: made.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done}})
	if err != nil {
		return err
	}
	return confirm(aws.ToString(end.ChecksumSHA256), sums)
}

// confirm compares the checksum of all that a store says, where it does, with
// what was sent (User Guide, "Composite checksums").
func confirm(said string, sums [][]byte) error {
	h := sha256.New()
	for _, s := range sums {
		h.Write(s)
	}
	want := fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(sums))
	if said != "" && said != want {
		return fmt.Errorf("the store has the checksum %s, want %s", said, want)
	}
	return nil
}
