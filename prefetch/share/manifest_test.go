package share

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
)

func layers(n int) []descriptor {
	var out []descriptor
	for i := range n {
		in := &lock.Input{Kind: lock.KindFile, Name: fmt.Sprintf("file <%d>", i), SHA256: digest.Of(fmt.Append(nil, i))}
		out = append(out, describe(in, int64(i), ""))
	}
	return out
}

func TestManifests(t *testing.T) {
	config := descriptor{MediaType: lockType, Digest: digest.Of([]byte("lock")), Size: 4}
	for _, limit := range []int{1000, 1001, 1500, 4096, 1 << 20} {
		all := layers(40)
		docs, err := manifests(config, all, limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []descriptor
		for i, w := range docs {
			if len(w.bytes) > limit && w.mediaType == manifestType {
				t.Errorf("limit %d: one has %d bytes", limit, len(w.bytes))
			}
			m, err := read(w.bytes)
			if err != nil {
				t.Fatal(err)
			}
			if m.MediaType == indexType {
				if i != len(docs)-1 || len(m.Manifests) != i {
					t.Errorf("limit %d: the index is at %d of %d", limit, i, len(docs))
				}
				continue
			}
			if *m.Config != config {
				t.Errorf("limit %d: got config %+v", limit, m.Config)
			}
			got = append(got, m.Layers...)
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(all)
		if !bytes.Equal(a, b) {
			t.Errorf("limit %d: other layers", limit)
		}
	}
	if _, err := manifests(config, layers(maxManifests+1), 700); err == nil {
		t.Error("more manifests than an index may have")
	}
	if _, err := manifests(config, layers(1), 100); err == nil {
		t.Error("a limit that no manifest keeps was kept")
	}
}

func TestReadRefuses(t *testing.T) {
	sum := digest.Of(nil).String()
	for _, c := range []struct{ in, want string }{
		{"", "not a manifest"},
		{"[]", "not a manifest"},
		{"{}", "not a store"},
		{`{"schemaVersion":2,"mediaType":"` + manifestType + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json"}}`, "not a store"},
		{`{"schemaVersion":1,"artifactType":"` + ArtifactType + `"}`, "schemaVersion 1"},
		{`{"schemaVersion":2,"mediaType":"x","artifactType":"` + ArtifactType + `"}`, `mediaType "x"`},
		{`{"schemaVersion":2,"mediaType":"` + indexType + `","artifactType":"` + ArtifactType + `","layers":[{"size":1}]}`, "at the same time"},
		{`{"schemaVersion":2,"mediaType":"` + manifestType + `","artifactType":"` + ArtifactType + `","layers":[{"size":1}]}`, "a descriptor"},
		{`{"schemaVersion":2,"mediaType":"` + manifestType + `","artifactType":"` + ArtifactType + `","layers":[{"digest":"` + sum + `","size":-1}]}`, "-1 bytes"},
		{`{"schemaVersion":2,"mediaType":"` + manifestType + `","artifactType":"` + ArtifactType + `","layers":[{"digest":"sha512:00","size":1}]}`, "not a manifest"},
		{`{"schemaVersion":2,"mediaType":"` + indexType + `","artifactType":"` + ArtifactType + `","manifests":[` + strings.Repeat(`{},`, maxManifests) + `{}]}`, "257 manifests"},
	} {
		if _, err := read([]byte(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: got %v, want %q", c.in, err, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	docs, err := manifests(descriptor{MediaType: lockType, Digest: digest.Of(nil)}, layers(8), 1000)
	if err != nil {
		f.Fatal(err)
	}
	for _, w := range docs {
		f.Add(w.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := read(b)
		if err != nil {
			return
		}
		w, err := write(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := read(w.bytes); err != nil {
			t.Errorf("written again: %v", err)
		}
	})
}
