package rpmmd

// Flags is the comparison of a versioned dependency: a sum of Less, Equal and
// Greater. 0 means that there is no version.
type Flags uint8

// The comparisons; "<=" is Less|Equal.
const (
	Less Flags = 1 << iota
	Equal
	Greater
)

// flagNames are the values of an entry's flags attribute.
var flagNames = map[string]Flags{
	"LT": Less, "EQ": Equal, "GT": Greater,
	"LE": Less | Equal, "GE": Greater | Equal, "NE": Less | Greater,
}

// String returns "<", "<=", "=", ">=", ">", "<>", or "" for no version.
func (f Flags) String() string {
	return [...]string{"", "<", "=", "<=", ">", "<>", ">=", "<=>"}[f&7]
}

// Dep is one entry of a package's provides, requires and so on. A rich
// dependency has its whole text, which begins with "(", as Name.
type Dep struct {
	Name  string
	Flags Flags
	EVR   EVR
}

// String returns the dependency as rpm prints it: "name", or "name >= evr".
func (d Dep) String() string {
	if d.Flags == 0 {
		return d.Name
	}
	return d.Name + " " + d.Flags.String() + " " + d.EVR.String()
}

// Package is one package of primary.xml. The embedded EVR is its own.
type Package struct {
	Name, Arch string
	EVR
	Checksum      Checksum // of the package file; its hex is the "pkgid" of filelists.xml
	Location      string   // path relative to Base, or to the repository where Base is empty
	Base          string   // xml:base: another root than the repository, mostly empty; not checked
	Size          int64    // of the package file, in bytes
	InstalledSize int64    // of the files when installed, in bytes
	BuildTime     int64    // seconds since 1970
	SourceRPM     string   // file name; empty for a source package
	Provides      []Dep
	Requires      []Dep
	Conflicts     []Dep
	Obsoletes     []Dep
	Recommends    []Dep
	Suggests      []Dep
	Supplements   []Dep
	Enhances      []Dep
	Files         []string // the paths in primary: /etc, *bin/ and /usr/lib/sendmail
}

// String returns "name-[epoch:]version-release.arch".
func (p *Package) String() string {
	return p.Name + "-" + p.EVR.String() + "." + p.Arch
}
