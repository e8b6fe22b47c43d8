//! Every driver against routers that misbehave, and against a real one in a network of its own.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::Path,
    time::Instant,
};

use super::*;
use crate::{
    fixture::note_skipped,
    gateway::{
        route,
        router::{CALL, Holder},
    },
    mapping::Protocol,
};

#[allow(dead_code, reason = "the program's tests use more of it")]
#[path = "../../../tests/it/harness/router.rs"]
mod harness;

mod fake;
mod lab;
mod port5351;

/// Whether these programs, and where asked for the rights of root, are here; else says loudly that
/// the test is skipped.
fn can_run(test: &str, tools: &[&str], as_root: bool) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let is_installed = |tool: &str| {
        path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(tool).is_file())
    };
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !is_installed(tool)).collect();
    let why = if as_root && !rustix::process::geteuid().is_root() {
        "only root may make a network namespace".to_owned()
    } else if !missing.is_empty() {
        format!("not installed: {}", missing.join(", "))
    } else {
        return true;
    };
    note_skipped(&format!("gateway::driver::tests::{test}"), &why);
    false
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test)
}

/// Runs one call, which must end within `limit`, and a moment for a busy machine.
async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> T {
    let started = std_now();
    let result = call.await;
    let took = started.elapsed();
    // What has to come at once may not take as long as a call.
    let moment = Duration::from_secs(if limit.is_zero() { 2 } else { 5 });
    assert!(took < limit + moment, "it took {took:?} of {limit:?}");
    result
}

#[expect(clippy::disallowed_methods, reason = "real time is what is claimed here")]
fn std_now() -> Instant {
    Instant::now()
}

fn request(internal: impl Into<SocketAddr>, external_port: u16) -> MapRequest {
    MapRequest {
        protocol: Protocol::Tcp,
        internal: internal.into(),
        external_port: NonZeroU16::new(external_port).expect("a port"),
        lease: Some(Duration::from_secs(600)),
        text: "portway:web@test".into(),
        nonce: [7; 12],
        pinhole: None,
    }
}

/// Does the same for each of them at once, on a thread each: most of the time passes in waiting.
fn each<T: Sync>(all: &[T], test: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for one in all {
            scope.spawn(|| test(one));
        }
    });
}
