//! Says in one line of JSON whether the machine runs the root that its kernel
//! command line promises: the root hash there must be the one that dm-verity
//! enforces, which caisson-agent is asked for.
//!
//! Exit status: 0 if it is, 1 if it is not, 2 if that cannot be told.

mod machine;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use machine::{Agent, Report};

const SOCKET: &str = "/run/caisson-agent.sock";
const TIMEOUT: Duration = Duration::from_secs(10);
/// The agent's answer has some 3 kB.
const MAX_ANSWER: u64 = 1 << 20;

fn main() -> ExitCode {
    let socket = std::env::args()
        .nth(1)
        .unwrap_or_else(|| SOCKET.to_string());
    match run(&socket) {
        Ok((line, matches)) => {
            println!("caisson-guest: {line}");
            if matches {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            }
        }
        Err(err) => {
            eprintln!("caisson-guest: {err}");
            ExitCode::from(2)
        }
    }
}

/// The report as JSON, and whether the two root hashes are equal.
fn run(socket: &str) -> Result<(String, bool), String> {
    let agent = ask(socket).map_err(|err| format!("asking the agent at {socket}: {err}"))?;
    let report = Report::new(
        &read("/etc/os-release")?,
        &read("/proc/cmdline")?,
        &read("/proc/self/mounts")?,
        agent,
    );
    let line = serde_json::to_string(&report).map_err(|err| err.to_string())?;
    Ok((line, report.root_hash_matches))
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|err| format!("reading {path}: {err}"))
}

/// The agent's status.
fn ask(socket: &str) -> Result<Agent, Box<dyn std::error::Error>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
