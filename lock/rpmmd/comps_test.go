package rpmmd

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

const oneComps = `<?xml version="1.0"?><!DOCTYPE comps PUBLIC '-//Red Hat, Inc.//DTD Comps info//EN' 'comps.dtd'>
<comps><group><id>core</id><name>Core</name><name xml:lang="de">Kern</name><description/>
<packagelist><packagereq type="mandatory">bash</packagereq><packagereq>sed</packagereq><packagereq type="optional" basearchonly="true">vi</packagereq>
<packagereq type="conditional" requires="kde">konsole</packagereq></packagelist></group>
<category><id>c</id></category>
<environment><id>min</id><name>Minimal</name><grouplist><groupid>core</groupid></grouplist>
<optionlist><groupid default="true">std</groupid><groupid>guest</groupid></optionlist></environment></comps>`

func TestParseComps(t *testing.T) {
	got, err := ParseComps(strings.NewReader(oneComps))
	if err != nil {
		t.Fatal(err)
	}
	want := &Comps{
		Groups: []Group{{ID: "core", Name: "Core", Packages: []GroupPackage{
			{Name: "bash", Type: "mandatory"}, {Name: "sed", Type: "mandatory"}, {Name: "vi", Type: "optional", BaseArchOnly: true},
			{Name: "konsole", Type: "conditional", Requires: "kde"},
		}}},
		Environments: []Environment{{ID: "min", Name: "Minimal", Groups: []string{"core"}, Options: []EnvironmentOption{{"std", true}, {"guest", false}}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, c := range []struct{ in, want string }{
		{strings.Replace(oneComps, "<id>core</id>", "", 1), `group "Core" has no id`},
		{strings.Replace(oneComps, "<id>min</id>", "", 1), `environment "Minimal" has no id`},
		{strings.Replace(oneComps, `"optional"`, `"maybe"`, 1), `unknown type "maybe"`},
		{strings.Replace(oneComps, "</comps>", "", 1), "unexpected EOF"},
		{"<html/>", "want <comps>"},
	} {
		if _, err := ParseComps(strings.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "comps: line ") {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

func TestParseCompsC9S(t *testing.T) {
	got, err := ParseComps(open(t, "rpm-md/c9s-baseos/repodata/*-comps-*.xml.gz"))
	if err != nil || len(got.Groups) < 10 || len(got.Environments) < 3 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzComps(f *testing.F) {
	seed(f, "rpm-md/*/repodata/*-comps-*", oneComps)
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := ParseComps(bytes.NewReader(in))
		if err != nil {
			return
		}
		for _, g := range c.Groups {
			if g.ID == "" {
				t.Errorf("accepted %+v", g)
			}
		}
	})
}
