package rpmwrite

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // rpm's own header digest, beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
)

// Tags of the header (rpm's include/rpm/rpmtag.h).
const (
	tagHeaderSignatures = 62
	tagHeaderImmutable  = 63
	tagI18NTable        = 100
	tagName             = 1000
	tagVersion          = 1001
	tagRelease          = 1002
	tagEpoch            = 1003
	tagSummary          = 1004
	tagDescription      = 1005
	tagBuildTime        = 1006
	tagBuildHost        = 1007
	tagRPMVersion       = 1064
	tagSize             = 1009
	tagVendor           = 1011
	tagLicense          = 1014
	tagGroup            = 1016
	tagURL              = 1020
	tagOS               = 1021
	tagArch             = 1022
	tagFileSizes        = 1028
	tagFileModes        = 1030
	tagFileRDevs        = 1033
	tagFileMTimes       = 1034
	tagFileDigests      = 1035
	tagFileLinkTos      = 1036
	tagFileFlags        = 1037
	tagFileUserName     = 1039
	tagFileGroupName    = 1040
	tagSourceRPM        = 1044
	tagFileVerifyFlags  = 1045
	tagFileDevices      = 1095
	tagFileInodes       = 1096
	tagFileLangs        = 1097
	tagDirIndexes       = 1116
	tagBaseNames        = 1117
	tagDirNames         = 1118
	tagPayloadFormat    = 1124
	tagPayloadCompress  = 1125
	tagPayloadFlags     = 1126
	tagFileCaps         = 5010
	tagFileDigestAlgo   = 5011
	tagEncoding         = 5062
	tagPayloadDigest    = 5092
	tagPayloadAlgo      = 5093
	tagPayloadDigestAlt = 5097
)

// Tags of the signature header.
const (
	sigRSAHeader   = 268
	sigSHA1Header  = 269
	sigSHA256      = 273
	sigSize        = 1000
	sigPGP         = 1002
	sigPayloadSize = 1007
)

// rpmVersion is the version of rpm as whose rpmbuild the package is made: without one, rpm 4.20 aborts at Lua scriptlets.
const rpmVersion = "4.18.0"

const algoSHA256 = 8 // RFC 4880, section 9.4

// The three tags of each kind of dependency: name, flags, version.
var provideTags, requireTags = [3]uint32{1047, 1112, 1113}, [3]uint32{1049, 1048, 1050}
var conflictTags, obsoleteTags = [3]uint32{1054, 1053, 1055}, [3]uint32{1090, 1114, 1115}
var recommendTags, suggestTags = [3]uint32{5046, 5048, 5047}, [3]uint32{5049, 5051, 5050}
var enhanceTags = [3]uint32{5055, 5057, 5056}

// lead is the obsolete first block: only its magic, type and name are still looked at.
func lead(p *Package) []byte {
	b := make([]byte, 96)
	copy(b, []byte{0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 0, 0, 1}) // magic, version 3.0, binary, architecture 1
	copy(b[10:75], p.Name+"-"+p.Version+"-"+p.Release)
	b[77] = 1 // Linux
	b[79] = 5 // signatures are in a header
	return b
}

func packageHeader(p *Package, files []File, pay *payload) ([]byte, error) {
	s := &store{}
	s.texts(tagI18NTable, []string{"C"})
	s.text(tagName, p.Name)
	s.text(tagVersion, p.Version)
	s.text(tagRelease, p.Release)
	if p.Epoch > 0 {
		s.int32s(tagEpoch, p.Epoch)
	}
	s.i18n(tagSummary, p.Summary)
	s.i18n(tagDescription, p.Description)
	s.i18n(tagGroup, p.Group)
	s.int32s(tagBuildTime, uint32(p.BuildTime.Unix()))
	s.text(tagBuildHost, p.BuildHost)
	s.text(tagRPMVersion, rpmVersion)
	s.text(tagVendor, p.Vendor)
	s.text(tagLicense, p.License)
	s.text(tagURL, p.URL)
	s.text(tagOS, "linux")
	s.text(tagArch, p.Arch)
	s.text(tagSourceRPM, p.SourceRPM)
	s.text(tagPayloadFormat, "cpio")
	s.text(tagPayloadCompress, "zstd")
	s.text(tagPayloadFlags, "3")
	s.text(tagEncoding, "utf-8")
	s.texts(tagPayloadDigest, []string{pay.digest})
	s.int32s(tagPayloadAlgo, algoSHA256)
	s.texts(tagPayloadDigestAlt, []string{pay.digestPlain})

	requires := append([]Dep(nil), p.Requires...)
	requires = append(requires, addScripts(s, p.Scripts)...)
	requires = append(requires, addTriggers(s, p.Triggers)...)
	addDeps(s, provideTags, p.Provides)
	addDeps(s, requireTags, append(requires, features(p, files, requires)...))
	addDeps(s, conflictTags, p.Conflicts)
	addDeps(s, obsoleteTags, p.Obsoletes)
	addDeps(s, recommendTags, p.Recommends)
	addDeps(s, suggestTags, p.Suggests)
	addDeps(s, enhanceTags, p.Enhances)
	addFiles(s, files, pay)
	b, err := s.bytes(tagHeaderImmutable)
	if err != nil {
		return nil, fmt.Errorf("package %q: %w", p.Name, err)
	}
	return b, nil
}

// addDeps writes one kind of dependencies, sorted, each once.
func addDeps(s *store, tags [3]uint32, deps []Dep) {
	deps = append([]Dep(nil), deps...)
	sort.Slice(deps, func(i, j int) bool {
		a, b := deps[i], deps[j]
		if a.Name != b.Name {
			return a.Name < b.Name
		}
		if a.EVR != b.EVR {
			return a.EVR < b.EVR
		}
		return a.Sense < b.Sense
	})
	var names, evrs []string
	var senses []uint32
	for i, d := range deps {
		if i > 0 && deps[i-1] == d {
			continue
		}
		names, evrs, senses = append(names, d.Name), append(evrs, d.EVR), append(senses, uint32(d.Sense))
	}
	s.texts(tags[0], names)
	s.int32s(tags[1], senses...)
	s.texts(tags[2], evrs)
}

// features are the rpmlib() dependencies: what an rpm must know to install this package.
func features(p *Package, files []File, requires []Dep) []Dep {
	need := map[string]string{
		"CompressedFileNames":    "3.0.4-1",
		"FileDigests":            "4.6.0-1",
		"PayloadFilesHavePrefix": "4.0-1",
		"PayloadIsZstd":          "5.4.18-1",
	}
	for _, d := range append(append(append([]Dep{{EVR: p.EVR()}}, requires...), p.Recommends...), p.Suggests...) {
		if d.rich() {
			need["RichDependencies"] = "4.12.0-1"
		}
		if strings.Contains(d.EVR+d.Name, "~") {
			need["TildeInVersions"] = "4.10.0-1"
		}
		if strings.Contains(d.EVR+d.Name, "^") {
			need["CaretInVersions"] = "4.15.0-1"
		}
	}
	for _, f := range files {
		if f.Caps != "" {
			need["FileCaps"] = "4.6.1-1"
		}
	}
	for _, x := range p.Scripts {
		if x.Prog == "<lua>" {
			need["BuiltinLuaScripts"] = "4.2.2-1"
		}
	}
	for _, x := range p.Triggers {
		if x.Prog == "<lua>" {
			need["BuiltinLuaScripts"] = "4.2.2-1"
		}
	}
	var deps []Dep
	for name, evr := range need { // addDeps sorts
		deps = append(deps, Dep{"rpmlib(" + name + ")", rpmlib | Less | Equal, evr})
	}
	return deps
}

// verifyAll and verifyMutable say what rpm -V compares (RPMVERIFY_*): everything, or all but digest, size and time.
const (
	verifyAll     = 0xffffffff
	verifyMutable = verifyAll &^ (1<<0 | 1<<1 | 1<<5)
)

func addFiles(s *store, files []File, pay *payload) {
	var dirs []string
	dirIndex := map[string]uint32{}
	for _, f := range files {
		d, _ := path.Split(f.Path)
		if _, ok := dirIndex[d]; !ok {
			dirIndex[d] = 0
			dirs = append(dirs, d)
		}
	}
	sort.Strings(dirs)
	for i, d := range dirs {
		dirIndex[d] = uint32(i)
	}
	var sizes, mtimes, flags, verify, devices, dirIndexes []uint32
	var modes, rdevs []uint16
	var links, users, groups, langs, bases, caps []string
	var total uint32
	counted := map[uint32]bool{}
	withCaps := false
	for i, f := range files {
		d, base := path.Split(f.Path)
		size := uint32(0)
		switch f.Mode & TypeMask {
		case TypeRegular:
			size = uint32(f.Size)
			if !counted[pay.inodes[i]] && f.Flags&Ghost == 0 {
				total += size
			}
			counted[pay.inodes[i]] = true
		case TypeLink:
			size = uint32(len(f.Target))
			total += size
		case TypeDir:
			size = 4096
		}
		v := uint32(verifyAll)
		if f.Mutable || f.Flags&Ghost != 0 {
			v = verifyMutable
		}
		sizes, mtimes = append(sizes, size), append(mtimes, uint32(f.MTime.Unix()))
		flags, verify = append(flags, uint32(f.Flags)), append(verify, v)
		devices, dirIndexes = append(devices, 1), append(dirIndexes, dirIndex[d])
		modes, rdevs = append(modes, uint16(f.Mode)), append(rdevs, 0)
		links, users, groups = append(links, f.Target), append(users, f.Owner), append(groups, f.Group)
		langs, bases, caps = append(langs, ""), append(bases, base), append(caps, f.Caps)
		withCaps = withCaps || f.Caps != ""
	}
	s.int32s(tagSize, total)
	s.int32s(tagFileSizes, sizes...)
	s.int16s(tagFileModes, modes...)
	s.int16s(tagFileRDevs, rdevs...)
	s.int32s(tagFileMTimes, mtimes...)
	s.texts(tagFileDigests, pay.fileDigests)
	s.texts(tagFileLinkTos, links)
	s.int32s(tagFileFlags, flags...)
	s.texts(tagFileUserName, users)
	s.texts(tagFileGroupName, groups)
	s.int32s(tagFileVerifyFlags, verify...)
	s.int32s(tagFileDevices, devices...)
	s.int32s(tagFileInodes, pay.inodes...)
	s.texts(tagFileLangs, langs)
	s.int32s(tagDirIndexes, dirIndexes...)
	s.texts(tagBaseNames, bases)
	s.texts(tagDirNames, dirs)
	if len(files) > 0 {
		s.int32s(tagFileDigestAlgo, algoSHA256)
	}
	if withCaps {
		s.texts(tagFileCaps, caps)
	}
}

// signatureHeader covers head, and head and payload. It is padded to 8 bytes, as rpm reads it.
func signatureHeader(p *Package, head []byte, pay *payload, spool Spool, sign Sign) ([]byte, error) {
	s := &store{}
	h1, h256 := sha1.Sum(head), sha256.Sum256(head) //nolint:gosec // as above
	s.text(sigSHA1Header, hex.EncodeToString(h1[:]))
	s.text(sigSHA256, hex.EncodeToString(h256[:]))
	s.int32s(sigSize, uint32(int64(len(head))+pay.size))
	s.int32s(sigPayloadSize, uint32(pay.sizePlain))
	if sign != nil {
		sig, err := sign(bytes.NewReader(head), p.BuildTime)
		if err != nil {
			return nil, fmt.Errorf("signing the header of %s: %w", p.Name, err)
		}
		s.bin(sigRSAHeader, sig)
		if _, err := spool.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		sig, err = sign(io.MultiReader(bytes.NewReader(head), spool), p.BuildTime)
		if err != nil {
			return nil, fmt.Errorf("signing %s: %w", p.Name, err)
		}
		s.bin(sigPGP, sig)
	}
	b, err := s.bytes(tagHeaderSignatures)
	if err != nil {
		return nil, fmt.Errorf("signature header of %q: %w", p.Name, err)
	}
	return append(b, make([]byte, -len(b)&7)...), nil
}
