package slsa

import (
	"strings"
	"testing"

	"caisson/lock"
)

func TestGitDependency(t *testing.T) {
	id := strings.Repeat("a", 40)
	in := lock.Input{Kind: lock.KindGit, Name: "proj", PURL: "pkg:github/a/b@" + id, URL: "https://github.com/a/b", Git: &lock.Git{Ref: "v1", Commit: id, Tree: strings.Repeat("b", 40)},
		Verified: &lock.Verified{Key: "ABCD", What: "tag"}, For: []lock.Use{{Set: "git:proj"}}}
	r := dependency(&lock.Lock{}, &in, "x86_64", "")
	if r.Digest["gitCommit"] != id || r.Digest["sha256"] == "" || r.Annotations["ref"] != "v1" || r.Annotations["signed"] != "tag" || r.Digest["sha1"] != id || r.URI != "git+https://github.com/a/b@v1" || r.Annotations["purl"] != in.PURL || r.DownloadLocation != in.URL {
		t.Errorf("got %+v", r)
	}
}
