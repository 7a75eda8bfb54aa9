package konflux

import (
	"io/fs"
	"reflect"
	"strings"
	"testing"
)

// requests reads the last stage of a Containerfile, with files beside it.
func requests(text, arch string, args map[string]string, files map[string]string) (*Requests, error) {
	c, err := ParseContainerfile("Containerfile", []byte(text), args)
	if err != nil {
		return nil, err
	}
	s, err := c.Select(ContainerfileRef{})
	if err != nil {
		return nil, err
	}
	return s.Requests(arch, func(name string) ([]byte, error) {
		if b, ok := files[name]; ok {
			return []byte(b), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	})
}

func TestRequests(t *testing.T) {
	files := map[string]string{
		"list.txt": "# a list\nfrom-list\n\n  two words\n", "pkgs-x86_64.txt": "only-x86\n", "pkgs-aarch64.txt": "only-arm\n",
		"hack/install.sh": "#!/usr/bin/env bash\nset -ex\nfor p in \"$@\"; do dnf -y install $p; done\nif [ \"$(uname -m)\" = x86_64 ]; then\n  dnf install -y \\\n    script-x86\nfi\n",
		"app.py":          "#!/usr/bin/python3\nimport dnf\n", "vars.sh": "PKGS='from vars'\n",
	}
	for _, tt := range []struct {
		name, run string
		want      []string // Install on x86_64
	}{
		{"plain", "dnf install -y a b", []string{"a", "b"}},
		{"yum, microdnf, a path", "yum -y install a && /usr/bin/microdnf install b; dnf-3 in c", []string{"a", "b", "c"}},
		{"flags with values", "dnf -y --setopt=tsflags=nodocs --setopt install_weak_deps=0 --enablerepo x -x y -e 0 install --releasever=9 a --nodocs", []string{"a"}},
		{"after --", "dnf install -- a", []string{"a"}},
		{"continuation and comments", "dnf install -y \\\n # first\n  a \\\n\n  b && \\\n  dnf clean all", []string{"a", "b"}},
		{"groups, modules, paths, provides, globs, versions", `dnf -y groupinstall "Development Tools" && dnf group install core && dnf module install nodejs:18/minimal && dnf install @x /usr/bin/y 'z(w)' python3-* v-1.2-3`,
			[]string{"/usr/bin/y", "@Development Tools", "@core", "@nodejs:18/minimal", "@x", "python3-*", "v-1.2-3", "z(w)"}},
		{"alternatives: the first is taken to succeed", "dnf install a || dnf install b", []string{"a"}},
		{"retry of an unknown command", "curl x || dnf install b", []string{"b"}},
		{"subshell, block, negation", "(dnf install a) && { dnf install b; } && ! dnf install c", []string{"a", "b", "c"}},
		{"pipes", "yes | dnf install a | tee log", []string{"a"}},
		{"prefixes", "sudo -E dnf install a; X=1 dnf install b; timeout 60 dnf install c; time dnf install d; env A=b dnf install e", []string{"a", "b", "c", "d", "e"}},
		{"nothing installed", "dnf clean all && dnf remove q && dnf -h && dnf repolist && echo dnf install q && which dnf && rpm -q dnf install && dnf", nil},
		{"ARG and ENV", "dnf install -y $ARGUMENT ${ENVIRONMENT} ${NOT:-default} ${ARGUMENT:+set}", []string{"arg", "default", "env1", "env2", "set"}},
		{"shell variables", `P="a b"; Q='c d'; export R=e; dnf install $P "$Q" $R`, []string{"a", "b", "c d", "e"}},
		{"arrays", `P=(a b); P+=(c); dnf install "${P[@]}"`, []string{"a", "b", "c"}},
		{"appended, cut", `P=a; P+=" b"; V=3.9.1; dnf install $P python${V%.*}`, []string{"a", "b", "python3.9"}},
		{"braces", "dnf install python3-{pip,devel}", []string{"python3-devel", "python3-pip"}},
		{"the arch", "if [ $(arch) = x86_64 ]; then dnf install a; elif [ $(arch) = aarch64 ]; then dnf install b; else dnf install c; fi", []string{"a"}},
		{"the arch in other ways", `[ "$(uname -m)" != x86_64 ] || dnf install a; [[ $HOSTTYPE == x86* ]] && dnf install b; test "$(go env GOARCH)" = amd64 && dnf install c; [ "$TARGETARCH" = arm64 ] && dnf install d`,
			[]string{"a", "b", "c"}},
		{"case", "case $(uname -m) in aarch64) P=a;; x86_64|s390x) P=b;; *) P=c;; esac; dnf install $P", []string{"b"}},
		{"command substitution", `E=$(if [ "$(uname -m)" != aarch64 ]; then echo -n extra; fi) && dnf install base $E $(printf '%s\n' p q)`, []string{"base", "extra", "p", "q"}},
		{"exit where the arch is another", `if [ "$(uname -m)" != aarch64 ]; then exit 0; fi; dnf install a`, nil},
		{"exit where something unknown is so", `. /etc/os-release && [ "${ID}" != centos ] && exit 0; dnf install a`, []string{"a"}},
		{"both branches where it depends on the image", "if [ -f /etc/x ]; then dnf install a; else dnf install b; fi; if rpm -q c; then :; else dnf install c; fi", []string{"a", "b", "c"}},
		{"the same value in both", "if [ -f /x ]; then P=a; else P=a; fi; dnf install $P", []string{"a"}},
		{"loops", "for p in a b; do dnf install $p-devel; done; while sleep 1; do dnf install c && break; done", []string{"a-devel", "b-devel", "c"}},
		{"functions", `get() { dnf install -y "$@" || return 1; }; get a b; get c`, []string{"a", "b", "c"}},
		{"sh -c and eval", `sh -c "dnf install a" && bash -euxc 'dnf install $1' x b; eval "dnf install c"`, []string{"a", "b", "c"}},
		{"a list", "xargs dnf install -y < /tmp/list.txt", []string{"from-list", "two", "words"}},
		{"a list in a pipe", "cat /tmp/list.txt | xargs -r dnf install -y", []string{"from-list", "two", "words"}},
		{"a list without remarks", "grep -vE '^(#|$)' /tmp/list.txt | xargs dnf install", []string{"from-list", "two", "words"}},
		{"a list as words", "dnf install $(cat /tmp/list.txt | grep -v '^#') $(</opt/pkgs-x86_64.txt)", []string{"from-list", "only-x86", "two", "words"}},
		{"a list for the arch", "xargs dnf install < /opt/pkgs-$(arch).txt", []string{"only-x86"}},
		{"a list that was not copied", "xargs dnf install < /tmp/pkgs-x86_64.txt", []string{"only-x86"}},
		{"a script", "/tmp/install.sh a b", []string{"a", "b", "script-x86"}},
		{"a script by name", "install.sh a", []string{"a", "script-x86"}},
		{"a script of a mount", "bash /src/hack/install.sh", []string{"script-x86"}},
		{"a program that is no shell script", "/app/app.py && python3 /app/app.py", nil},
		{"a sourced file", ". /app/vars.sh && dnf install $PKGS", []string{"from", "vars"}},
		{"swap", "dnf swap a b", []string{"b"}},
		{"heredocs", "<<EOF\nset -e\ndnf install a\nEOF", []string{"a"}},
		{"a heredoc that is read", "xargs dnf install <<EOF\na\nb\nEOF", []string{"a", "b"}},
		{"a heredoc for a shell", "bash <<'EOF'\ndnf install a\nEOF", []string{"a"}},
		{"a heredoc for something else", "<<EOF\n#!/usr/bin/python3\ndnf install a\nEOF", nil},
		{"JSON", `["dnf", "install", "-y", "a b"]`, []string{"a b"}},
		{"JSON with a shell", `["/bin/bash", "-c", "dnf install a && dnf install b"]`, []string{"a", "b"}},
		{"a flag", "--mount=type=cache,target=/var/cache/dnf dnf install a", []string{"a"}},
		{"a folder that is mounted", "--mount=type=bind,source=hack,target=/m /m/install.sh", []string{"script-x86"}},
		{"no shell script, and no dnf", "this is ) no script", nil},
	} {
		text := "ARG GLOBAL=arg\nFROM base\nARG ARGUMENT=$GLOBAL\nARG GLOBAL\nARG ARGUMENT=${GLOBAL}\nARG TARGETARCH\nENV ENVIRONMENT=\"env1 env2\"\n" +
			"COPY list.txt hack/*.sh /tmp/\nCOPY pkgs-*.txt /opt/\nCOPY . /app\nRUN " + tt.run + "\n"
		got, err := requests(text, "x86_64", nil, files)
		if err != nil || !reflect.DeepEqual(got.Install, tt.want) {
			t.Errorf("%s: got %+v, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	arm, err := requests("FROM x\nCOPY pkgs-*.txt /opt/\nRUN xargs dnf install < /opt/pkgs-$(arch).txt; case $(arch) in x86_64) dnf install a;; *) dnf install b;; esac\n", "aarch64", nil, files)
	if err != nil || !reflect.DeepEqual(arm.Install, []string{"b", "only-arm"}) {
		t.Errorf("got %+v, %v", arm, err)
	}
}

func TestRequestsOther(t *testing.T) {
	text := `FROM base AS one
ENV P=inherited
ARG Q=lost
RUN dnf install first
FROM one
ARG OUTSIDE=default
ARG LATER
RUN dnf -y reinstall r && dnf update -y u && yum upgrade && microdnf upgrade v
RUN dnf module enable -y nodejs:18 && dnf module disable ruby && dnf module reset q && dnf builddep -y source x.spec
RUN dnf install --allowerasing $P $OUTSIDE $LATER
RUN dnf --installroot /mnt install base
COPY <<EOF /tmp/pkgs
inline
EOF
RUN xargs dnf install < /tmp/pkgs
`
	got, err := requests(text, "s390x", map[string]string{"OUTSIDE": "given", "LATER": "too"}, nil)
	want := &Requests{
		Install: []string{"base", "first", "given", "inherited", "inline", "too"}, Reinstall: []string{"r"}, Upgrade: []string{"u", "v"},
		ModuleEnable: []string{"nodejs:18"}, ModuleDisable: []string{"ruby"}, BuildDep: []string{"source", "x.spec"}, AllowErasing: true,
		InstallRoot: "Containerfile:11",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestRequestsErrors(t *testing.T) {
	files := map[string]string{"s.sh": "#!/bin/sh\n\ndnf install $NOBODY\n", "loop.sh": "#!/bin/sh\n/x/loop.sh\n"}
	for _, tt := range []struct{ run, want string }{
		{"dnf install $NOPE", "Containerfile:2: dnf install …: variable NOPE has no value"},
		{"a && \\\n dnf install ${V}-devel", "Containerfile:2: dnf install …: variable V has no value"},
		{"V=$(curl x) && dnf install a-$V", "Containerfile:2: dnf install …: variable V: what curl writes"},
		{"dnf install $(rpm -E %rhel)", "Containerfile:2: dnf install …: what rpm writes"},
		{"if [ -f /x ]; then V=1; else V=2; fi; dnf install a$V", "Containerfile:2: dnf install …: variable V: it depends on what is in the image"},
		{"[ -f /x ] && V=1; dnf install a$V", "Containerfile:2: dnf install …: variable V: it depends on what is in the image"},
		{"while read p; do dnf install $p; done < list", "Containerfile:2: dnf install …: variable p: it is read while the image is built"},
		{"for p in $(ls); do dnf install $p; done", "Containerfile:2: dnf install …: variable p: what ls writes"},
		{"$PM install -y a", "Containerfile:2: … install -y a: variable PM has no value"},
		{"curl x | xargs dnf install", "Containerfile:2: xargs dnf: what it reads cannot be told: what curl writes"},
		{"xargs dnf install < /x/list", "Containerfile:2: xargs dnf: what it reads cannot be told: the file /x/list, which is not in the build's folder"},
		{"dnf frobnicate a", `Containerfile:2: dnf: "frobnicate": what it installs cannot be locked; name that under packages, and the file without packagesFromContainerfile`},
		{"dnf module frob a", `Containerfile:2: dnf: module "frob": want enable, disable, install, switch-to or reset`},
		{"dnf swap a", `Containerfile:2: dnf: swap: want two packages, got ["a"]`},
		{"dnf install ( a", "Containerfile:2: no shell script: 1:13: a command can only contain words and redirects; encountered ("},
		{"/s.sh", "s.sh:3: dnf install …: variable NOBODY has no value"},
		{"/x/loop.sh", "loop.sh: scripts that call each other too deeply"},
		{"dnf install a{1..999999999}", "Containerfile:2: dnf install a{1..999999999}: braces that make too many words"},
		{"f() { f; f; }; f", "Containerfile:2: a script that is too long or too deeply nested to be followed"},
		{`A=aaaaaaaaaaaaaaaa; for i in 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9; do A=$A$A$A$A; done; dnf install $A`,
			"Containerfile:2: dnf install …: variable A: it is longer than is followed"},
	} {
		_, err := requests("FROM x\nRUN "+tt.run+"\n", "x86_64", nil, files)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.run, err, tt.want)
		}
	}
	if _, err := requests("FROM x\nARG V\nENV W=$V\nRUN dnf install $W\n", "x86_64", nil, nil); err == nil || !strings.HasSuffix(err.Error(), "variable W has no value") {
		t.Errorf("got %v", err)
	}
}

func TestStages(t *testing.T) {
	text := `ARG REG="example.org"
ARG TAG
ARG FULL=${REG}/full:${TAG:-latest}
FROM --platform=linux/amd64 $REG/first:1 AS Builder
FROM builder AS second
FROM ${FULL}
FROM $REG/x:$TAG AS broken
FROM broken AS also
FROM scratch AS last
`
	for _, tt := range []struct {
		ref        ContainerfileRef
		image, err string
	}{
		{ContainerfileRef{StageNum: 1}, "example.org/first:1", ""},
		{ContainerfileRef{StageName: "second"}, "example.org/first:1", ""},
		{ContainerfileRef{ImagePattern: `full:\w+`}, "example.org/full:latest", ""},
		{ContainerfileRef{ImagePattern: "full", StageName: "builder"}, "example.org/first:1", ""},
		{ContainerfileRef{}, "scratch", ""},
		{ContainerfileRef{StageNum: 5}, "", `Containerfile:7: FROM: "$REG/x:$TAG": variable TAG has no value; give it one in an argFile`},
		{ContainerfileRef{StageName: "nobody"}, "", "Containerfile: none of its 6 stages is the one that stageNum, stageName or imagePattern asks for"},
		{ContainerfileRef{ImagePattern: "("}, "", "imagePattern: error parsing regexp: missing closing ): `(`"},
	} {
		c, err := ParseContainerfile("Containerfile", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		image := ""
		s, err := c.Select(tt.ref)
		if err == nil {
			image, err = s.Image()
		}
		if err == nil && (tt.err != "" || image != tt.image) || err != nil && err.Error() != tt.err {
			t.Errorf("%+v: got %s, %v", tt.ref, image, err)
		}
	}
	c, err := ParseContainerfile("Containerfile", []byte(text), map[string]string{"TAG": "9"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Select(ContainerfileRef{StageName: "also"})
	if err != nil {
		t.Fatal(err)
	}
	if image, err := s.Image(); err != nil || image != "example.org/x:9" {
		t.Errorf("got %s, %v", image, err)
	}
	for _, tt := range []struct{ text, want string }{
		{"", "Containerfile: file with no instructions"},
		{"RUN x\nFROM y\n", "Containerfile:1: RUN before the first FROM"},
		{"FROM a b c\n", "Containerfile:1: FROM a b c: want FROM IMAGE [AS NAME]"},
		{"ARG A=1\n", "Containerfile: no FROM"},
	} {
		if _, err := ParseContainerfile("Containerfile", []byte(tt.text), nil); err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
	}
}

func FuzzContainerfile(f *testing.F) {
	f.Add("FROM a AS b\nARG X=1\nENV Y=\"$X z\"\nCOPY a b /c/\nRUN --mount=type=bind,target=/x for i in $Y; do dnf install $i ${X:-q} $(echo a); done\n")
	f.Add("FROM a\nRUN <<EOF\ncase $(arch) in x*) dnf install a{b,c};; esac\nif [ -f x ] && ! [[ a == b* ]]; then f() { dnf install \"$@\"; }; f a; fi\nEOF\nRUN [\"sh\", \"-c\", \"cat a | xargs dnf install\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := requests(text, "x86_64", nil, map[string]string{"a": "b\nc", "s.sh": text})
		if err == nil && got == nil {
			t.Error("nothing and no error")
		}
	})
}
