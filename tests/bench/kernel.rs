//! The floor: the kernel forwards by itself.
//!
//! One table of nftables in the benchmark's own network sends what comes for the relay's address to the target instead
//! (DNAT). Connection tracking does the rest. It shows what forwarding costs where no process sees a byte. The table
//! goes with the value. In the network of the machine nothing of this is touched.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::config::Forward;

/// The table's name.
const TABLE: &str = "portway_bench";

/// The rules, while they are in force.
pub(crate) struct Rules(());

impl Rules {
    /// Puts the rules in force.
    pub(crate) fn set(forwards: &[Forward]) -> Result<Self> {
        let rule = |forward: &Forward| {
            let Forward { listen, target, udp, .. } = forward;
            let (protocol, from) = (if *udp { "udp" } else { "tcp" }, listen.port());
            format!("  ip daddr {} {protocol} dport {from} dnat to {target}\n", listen.ip())
        };
        let rules: String = forwards.iter().map(rule).collect();
        nft(&format!(
            "table ip {TABLE} {{\n chain out {{\n  type nat hook output priority -100\n{rules} }}\n}}\n"
        ))?;
        Ok(Self(()))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = nft(&format!("delete table ip {TABLE}\n"));
    }
}

fn nft(text: &str) -> Result<()> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = nft.spawn().context("start nft (package nftables)")?;
    // Dropped at the end of the statement, which ends the input.
    child.stdin.take().context("nft has an input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft: {}", said.lines().next().unwrap_or("failed"));
    Ok(())
}
