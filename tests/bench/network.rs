//! The network that everything is measured in.
//!
//! As root it is one of the benchmark's own, with nothing in it but loopback: no firewall or connection tracking of the
//! machine, and a congestion control that does not pace. BBR does, with a timer of the kernel's for every piece that is
//! sent: where it is the machine's default, a stream waits for timers, whatever relays it, and its figures say little of
//! the relay (one had 0.33 and 0.76 CPU s/GiB within six rounds).

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// Where the congestion control is set, for sockets that choose none.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// The first that may be chosen is taken: the default of most machines, else the one that every machine has. A network
/// of one's own may choose only what any program may.
const UNPACED: [&str; 2] = ["cubic", "reno"];

/// Moves this process, which has one thread yet, to a network of its own, where it may, and says in which it is, and whether that is its own.
pub(crate) fn enter(wanted: bool) -> Result<(bool, String)> {
    let is_own = wanted && unshare(CloneFlags::CLONE_NEWNET).is_ok();
    if is_own {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        ensure!(up.context("start ip (package iproute2)")?.success(), "loopback did not come up");
        // None of them may be chosen: then the default stays, and is named.
        let _ = UNPACED.iter().any(|name| fs::write(CONGESTION_CONTROL, name).is_ok());
    }
    let control = fs::read_to_string(CONGESTION_CONTROL).context("read the congestion control")?;
    let place = if is_own { "network namespace of its own" } else { "network of the machine" };
    Ok((is_own, format!("{place}, TCP {}", control.trim())))
}
