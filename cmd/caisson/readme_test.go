package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"caisson/lock"
)

// TestReadme parses the manifests that README.md shows.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(b), -1)
	if len(blocks) < 2 {
		t.Fatalf("%d manifests in README.md; want two or more", len(blocks))
	}
	for _, m := range blocks {
		text := strings.ReplaceAll(m[1], "sha256: …", "sha256: "+strings.Repeat("1", 64))
		if !strings.HasPrefix(text, "version:") {
			text = "version: 1\nname: shown\n" + text
		}
		if !strings.Contains(text, "\nrpm:") {
			text += "rpm: {repos: [{id: base, baseurl: 'https://mirror.example/', gpgkey: [key]}]}\n"
		}
		if _, err := lock.ParseManifest("README.md", []byte(text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

// TestReadmeLinks follows the links of README.md to its own headings, as GitHub
// names them, and to files.
func TestReadmeLinks(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	heads := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllStringSubmatch(string(b), -1) {
		name := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		heads[strings.ReplaceAll(name, " ", "-")] = true
	}
	links := regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(string(b), -1)
	if len(links) < 15 {
		t.Errorf("%d links", len(links))
	}
	for _, m := range links {
		if head, ok := strings.CutPrefix(m[1], "#"); ok {
			if !heads[head] {
				t.Errorf("README.md has no heading %s", head)
			}
		} else if _, err := os.Stat("../../" + m[1]); err != nil {
			t.Error(err)
		}
	}
}
