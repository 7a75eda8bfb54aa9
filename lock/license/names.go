package license

// phrase is a Callaway name that has an operator in it.
type phrase struct {
	words []string
	gpl   string
}

// node is the choice between a version of the GPL and the licence that Perl has
// beside it.
func (p phrase) node() *node {
	return &node{op: or, kids: []*node{term(p.gpl), term("Artistic-1.0-Perl")}}
}

var phrases = [...]phrase{
	{[]string{"GPL+", "or", "Artistic"}, "GPL-1.0-or-later"},
	{[]string{"GPLv2+", "or", "Artistic"}, "GPL-2.0-or-later"},
}

// callaway are the Callaway names, in lower case, that stand for one licence of
// the SPDX list under another name.
var callaway = map[string]string{
	"adobe":                     "Adobe-2006",
	"agplv1":                    "AGPL-1.0-only",
	"agplv3":                    "AGPL-3.0-only",
	"agplv3+":                   "AGPL-3.0-or-later",
	"ampas bsd":                 "AMPAS",
	"apache 2.0":                "Apache-2.0",
	"apsl 2.0":                  "APSL-2.0",
	"arphic":                    "Arphic-1999",
	"artistic 2.0":              "Artistic-2.0",
	"artistic clarified":        "ClArtistic",
	"asl 1.0":                   "Apache-1.0",
	"asl 1.1":                   "Apache-1.1",
	"asl 2.0":                   "Apache-2.0",
	"bitstream vera":            "Bitstream-Vera",
	"bittorrent":                "BitTorrent-1.1",
	"boost":                     "BSL-1.0",
	"bsd protection":            "BSD-Protection",
	"bsd with attribution":      "BSD-3-Clause-Attribution",
	"catosl":                    "CATOSL-1.1",
	"cc0":                       "CC0-1.0",
	"cecill-b":                  "CECILL-B",
	"cecill-c":                  "CECILL-C",
	"condor":                    "Condor-1.1",
	"cpal":                      "CPAL-1.0",
	"cpl":                       "CPL-1.0",
	"ecl 1.0":                   "ECL-1.0",
	"ecl 2.0":                   "ECL-2.0",
	"ecos":                      "GPL-2.0-or-later WITH eCos-exception-2.0",
	"efl 2.0":                   "EFL-2.0",
	"epl":                       "EPL-1.0",
	"erpl":                      "ErlPL-1.1",
	"eu datagrid":               "EUDatagrid",
	"eupl 1.1":                  "EUPL-1.1",
	"fbsddl":                    "FreeBSD-DOC",
	"gpl+":                      "GPL-1.0-or-later",
	"gplv1":                     "GPL-1.0-only",
	"gplv2":                     "GPL-2.0-only",
	"gplv2+":                    "GPL-2.0-or-later",
	"gplv3":                     "GPL-3.0-only",
	"gplv3+":                    "GPL-3.0-or-later",
	"ibm":                       "IPL-1.0",
	"inner-net":                 "Inner-Net-2.0",
	"interbase":                 "Interbase-1.0",
	"jasper":                    "JasPer-2.0",
	"jpython":                   "CNRI-Jython",
	"knuth":                     "Knuth-CTAN",
	"lbnl bsd":                  "BSD-3-Clause-LBNL",
	"lgplv2+":                   "LGPL-2.1-or-later",
	"lgplv2.1":                  "LGPL-2.1-only",
	"lgplv2.1+":                 "LGPL-2.1-or-later",
	"lgplv3":                    "LGPL-3.0-only",
	"lgplv3+":                   "LGPL-3.0-or-later",
	"mit with advertising":      "MIT-advertising",
	"mplv1.0":                   "MPL-1.0",
	"mplv1.1":                   "MPL-1.1",
	"mplv2.0":                   "MPL-2.0",
	"open publication":          "OPUBL-1.0",
	"ofl":                       "OFL-1.1",
	"openldap":                  "OLDAP-2.8",
	"osl 1.0":                   "OSL-1.0",
	"osl 1.1":                   "OSL-1.1",
	"osl 2.0":                   "OSL-2.0",
	"osl 2.1":                   "OSL-2.1",
	"osl 3.0":                   "OSL-3.0",
	"php":                       "PHP-3.01",
	"python":                    "Python-2.0.1",
	"qpl":                       "QPL-1.0",
	"rpsl":                      "RPSL-1.0",
	"simpl 2.0":                 "SimPL-2.0",
	"spl":                       "SPL-1.0",
	"upl":                       "UPL-1.0",
	"utopia":                    "Adobe-Utopia",
	"vsl":                       "VSL-1.0",
	"watcom":                    "Watcom-1.0",
	"zend":                      "Zend-2.0",
	"zlib with acknowledgement": "zlib-acknowledgement",
	"zplv2.0":                   "ZPL-2.0",
	"zplv2.1":                   "ZPL-2.1",
}

// fedoraRefs are the Callaway names, in lower case, for which Fedora's licence
// data has a LicenseRef.
var fedoraRefs = map[string]string{
	"public domain": "LicenseRef-Fedora-Public-Domain",
	"redistributable, no modification permitted":  "LicenseRef-Fedora-Firmware",
	"freely redistributable without restriction":  "LicenseRef-Fedora-UltraPermissive",
	"freely redistributable without restrictions": "LicenseRef-Fedora-UltraPermissive",
}

// umbrellas are the Callaway names that stand for several licences of the SPDX
// list, for a licence with exceptions that they do not name, or for one that the
// list does not have.
var umbrellas = [...]string{
	"AFL",
	"AGPLv3 with exceptions",
	"AGPLv3+ with exceptions",
	"Artistic",
	"BSD",
	"BSD with advertising",
	"CC-BY",
	"CC-BY-ND",
	"CC-BY-SA",
	"CDDL",
	"CeCILL",
	"CNRI",
	"Copyright only",
	"DMIT",
	"Free Art",
	"GFDL",
	"GPL+ with exceptions",
	"GPLv2 with additional permissions",
	"GPLv2 with exceptions",
	"GPLv2+ with exceptions",
	"GPLv3 with exceptions",
	"GPLv3+ with exceptions",
	"HSRL",
	"LDPL",
	"LGPLv2",
	"LGPLv2 with exceptions",
	"LGPLv2+ with exceptions",
	"LGPLv3 with exceptions",
	"LGPLv3+ with exceptions",
	"LPPL",
	"Liberation",
	"Lucida",
	"MPL",
	"Netscape",
	"Nmap",
	"OFSFDL",
	"Redistributable",
	"RSA",
	"Romio",
	"Rsfs",
	"UCD",
	"Unicode",
	"Verbatim",
	"Wadalab",
	"ZPL",
	"mecab-ipadic",
}
