package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"caisson/attest"
	"caisson/lock"
)

// cloud is what uplosi has to know of a provider (its README, "Reference").
type cloud struct {
	required []string // nobody but the user knows these
	optional []string
	name     func(string) string // an image's name as the provider takes it
}

// clouds are uplosi's providers.
func clouds() map[string]cloud {
	same := func(s string) string { return s }
	return map[string]cloud{
		"aws": {[]string{"region", "bucket"}, []string{"replicationRegions", "amiName", "amiDescription", "bucketLocationConstraint", "blobName", "snapshotName", "publish"}, same},
		"azure": {[]string{"subscriptionID", "location", "resourceGroup", "sharedImageGallery"},
			[]string{"replicationRegions", "attestationVariant", "sharingProfile", "sharingNamePrefix", "imageDefinitionName", "offer", "sku", "publisher", "diskName", "additionalSignatures"}, same},
		"gcp": {[]string{"project", "location", "bucket"}, []string{"imageName", "imageFamily", "blobName"}, gcpName},
	}
}

var (
	uplosiVersion = regexp.MustCompile(`^\d+\.\d+\.\d+$`)
	notGCP        = regexp.MustCompile(`[^a-z0-9-]+`)
)

// gcpName is a name with nothing in it but what Google's images may have.
func gcpName(s string) string {
	s = strings.Trim(notGCP.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if s == "" || s[0] < 'a' {
		s = "image-" + s
	}
	return s
}

// uplosiConfig is uplosi.conf for some providers, TOML. What is not given and
// has to be is a comment; what is given is checked by its name alone.
func uplosiConfig(p *attest.Package, providers []string, version string, given []string) (string, error) {
	if !uplosiVersion.MatchString(version) {
		return "", usageError{fmt.Errorf("--image-version %q: uplosi wants MAJOR.MINOR.PATCH", version)}
	}
	values, err := uplosiValues(providers, given)
	if err != nil {
		return "", err
	}
	raw := strings.TrimSuffix(p.Disk.Name, filepath.Ext(p.Disk.Name)) + ".raw"
	var b strings.Builder
	fmt.Fprintf(&b, "# uplosi.conf: of %s, %s\n# lock %s\n", p.Disk.Name, p.Disk.SHA256, p.Description.Lock)
	if p.Disk.Name != raw {
		from := strings.TrimPrefix(filepath.Ext(p.Disk.Name), ".")
		if from == lock.OutputVHD {
			from = "vpc" // as qemu-img calls it
		}
		fmt.Fprintf(&b, "# uplosi wants a raw disk: qemu-img convert -f %s -O raw %s %s; or image.output: [qcow2, raw]\n", from, p.Disk.Name, raw)
	}
	fmt.Fprintf(&b, "# then: uplosi upload %s\n\n[base]\nimageVersion = %s\n", raw, tomlString(version))
	name := p.Description.Name
	if p.Description.Variant != "" {
		name += "-" + p.Description.Variant
	}
	for _, provider := range providers {
		c := clouds()[provider]
		fmt.Fprintf(&b, "\n[variant.%s]\nprovider = %s\nname = %s\n\n[variant.%s.%s]\n", provider, tomlString(provider), tomlString(c.name(name)), provider, provider)
		for _, key := range c.required {
			if v, ok := values[provider+"."+key]; ok {
				fmt.Fprintf(&b, "%s = %s\n", key, v)
			} else {
				fmt.Fprintf(&b, "# %s = \"\" # has to be given: --set %s.%s=…\n", key, provider, key)
			}
		}
		for _, key := range c.optional {
			if v, ok := values[provider+"."+key]; ok {
				fmt.Fprintf(&b, "%s = %s\n", key, v)
			}
		}
	}
	return b.String(), nil
}

// uplosiValues reads PROVIDER.KEY=VALUE. Lists are separated by commas.
func uplosiValues(providers, given []string) (map[string]string, error) {
	for _, p := range providers {
		if _, ok := clouds()[p]; !ok {
			return nil, usageError{fmt.Errorf("--uplosi %q: want aws, azure or gcp", p)}
		}
	}
	values := map[string]string{}
	for _, s := range given {
		key, value, ok := strings.Cut(s, "=")
		provider, setting, dot := strings.Cut(key, ".")
		c := clouds()[provider]
		switch {
		case !ok || !dot:
			return nil, usageError{fmt.Errorf("--set %q: want PROVIDER.KEY=VALUE", s)}
		case !slices.Contains(providers, provider):
			return nil, usageError{fmt.Errorf("--set %q: --uplosi does not name %q", s, provider)}
		case !slices.Contains(c.required, setting) && !slices.Contains(c.optional, setting):
			return nil, usageError{fmt.Errorf("--set %q: uplosi has no %q for %s", s, setting, provider)}
		}
		switch setting {
		case "publish":
			if value != "true" && value != "false" {
				return nil, usageError{fmt.Errorf("--set %q: want true or false", s)}
			}
			values[key] = value
		case "replicationRegions", "additionalSignatures":
			var all []string
			for v := range strings.SplitSeq(value, ",") {
				all = append(all, tomlString(v))
			}
			values[key] = "[" + strings.Join(all, ", ") + "]"
		default:
			values[key] = tomlString(value)
		}
	}
	return values, nil
}

// tomlString is a basic string (TOML 1.0, "String").
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
