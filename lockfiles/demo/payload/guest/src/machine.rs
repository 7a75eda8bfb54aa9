//! What the guest says of its machine, from the files that say it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the agent answers, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub struct Agent {
    pub root: AgentRoot,
    #[serde(default)]
    pub pcrs: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRoot {
    pub verity: bool,
    pub intact: bool,
    #[serde(default)]
    pub root_hash: String,
}

/// The line that the guest prints.
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// PRETTY_NAME of os-release.
    pub os: String,
    /// The root hash on the kernel's command line; empty if there is none.
    pub cmdline_root_hash: String,
    /// The root hash that dm-verity enforces; empty if it enforces none.
    pub verity_root_hash: String,
    /// Whether both are the same, and no damaged block was met.
    pub root_hash_matches: bool,
    /// The file system at /: "erofs", or "overlay" where it can be written.
    pub root_fs: String,
    pub mounts: usize,
    /// PCR 11, which measures the unified kernel image.
    pub pcr11: Option<String>,
}

impl Report {
    pub fn new(os_release: &str, cmdline: &str, mounts: &str, agent: Agent) -> Report {
        let promised = option(cmdline, "roothash")
            .unwrap_or_default()
            .to_lowercase();
        let enforced = if agent.root.verity {
            agent.root.root_hash.to_lowercase()
        } else {
            String::new()
        };
        let mounts = parse_mounts(mounts);
        Report {
            os: os_field(os_release, "PRETTY_NAME").unwrap_or_default(),
            root_hash_matches: !promised.is_empty() && promised == enforced && agent.root.intact,
            cmdline_root_hash: promised,
            verity_root_hash: enforced,
            root_fs: mounts
                .iter()
                .rev()
                .find(|m| m.0 == "/")
                .map(|m| m.1.to_string())
                .unwrap_or_default(),
            mounts: mounts.len(),
            pcr11: agent.pcrs.get("11").cloned(),
        }
    }
}

/// The last value of an option of the kernel's command line. Options after
/// "--" are for init.
fn option<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline
        .split_whitespace()
        .take_while(|word| *word != "--")
        .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .last()
}

/// A field of os-release(5), without its quotes.
fn os_field(os_release: &str, name: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
    let quoted = |q: char| value.strip_prefix(q)?.strip_suffix(q);
    Some(quoted('"').or(quoted('\'')).unwrap_or(value).to_string())
}

/// Mount point and type of each line of /proc/self/mounts.
fn parse_mounts(mounts: &str) -> Vec<(&str, &str)> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "3f6a0c1e5d7b9a8c3f6a0c1e5d7b9a8c3f6a0c1e5d7b9a8c3f6a0c1e5d7b9a8c";

    const MOUNTS: &str = "rootfs / rootfs rw 0 0\n\
        overlay / overlay rw,lowerdir=/sysroot 0 0\n\
        tmpfs /run tmpfs rw,nosuid 0 0\n";

    fn agent(verity: bool, intact: bool, hash: &str) -> Agent {
        let answer = format!(
            r#"{{"root":{{"verity":{verity},"overlay":true,"device":"dm-0","rootHash":"{hash}","intact":{intact}}},
                "pcrs":{{"4":"aa","11":"bb"}}}}"#
        );
        serde_json::from_str(&answer).unwrap()
    }

    fn report(cmdline: &str, agent: Agent) -> Report {
        Report::new(
            "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n",
            cmdline,
            MOUNTS,
            agent,
        )
    }

    #[test]
    fn matching_root() {
        let cmdline = format!("console=ttyS0 roothash={HASH} systemd.volatile=overlay\n");
        let got = report(&cmdline, agent(true, true, HASH));
        let want = Report {
            os: "Debian GNU/Linux 12".to_string(),
            cmdline_root_hash: HASH.to_string(),
            verity_root_hash: HASH.to_string(),
            root_hash_matches: true,
            root_fs: "overlay".to_string(),
            mounts: 3,
            pcr11: Some("bb".to_string()),
        };
        assert_eq!(got, want);
        let line = serde_json::to_string(&got).unwrap();
        assert!(line.contains(r#""rootHashMatches":true"#), "{line}");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn other_roots_do_not_match() {
        let cmdline = format!("roothash={HASH}");
        for (cmdline, agent) in [
            (cmdline.as_str(), agent(true, true, &HASH.replace('3', "4"))),
            (cmdline.as_str(), agent(false, false, HASH)),
            (cmdline.as_str(), agent(true, false, HASH)),
            (cmdline.as_str(), agent(true, true, "")),
            ("quiet", agent(true, true, "")),
            ("quiet", agent(true, true, HASH)),
            ("init=x -- roothash=1", agent(true, true, "1")),
            ("xroothash=1", agent(true, true, "1")),
        ] {
            assert!(!report(cmdline, agent).root_hash_matches, "{cmdline}");
        }
    }

    #[test]
    fn last_option_wins() {
        assert_eq!(option("a=1 b=2 a=3", "a"), Some("3"));
        assert_eq!(option("a", "a"), None);
    }

    #[test]
    fn os_release_quotes() {
        assert_eq!(os_field("ID=debian\n", "ID").unwrap(), "debian");
        assert_eq!(os_field("ID='a b'\n", "ID").unwrap(), "a b");
        assert_eq!(os_field("ID_LIKE=x\n", "ID"), None);
    }

    #[test]
    fn agents_without_verity_say_less() {
        let agent: Agent = serde_json::from_str(
            r#"{"root":{"verity":false,"overlay":false,"intact":false},"pcrs":{}}"#,
        )
        .unwrap();
        assert!(!agent.root.verity && agent.pcrs.is_empty());
    }
}
