//! What the tests share, written so that a test reads as a sentence.
//!
//! Every process started here is ended here, by its own id; every address is the test's own; every wait is for a
//! condition, with a deadline and a message that says what did not happen.

mod address;
mod api;
mod browser;
mod client;
mod content;
mod daemon;
mod engine;
mod fake_api;
mod household;
mod lab;
pub(crate) mod messages;
mod neighbour;
mod program;
mod router;
mod source;
mod systemd;
mod target;
mod terminal;
mod wait;

pub(crate) use crate::free_ports::free_port;
pub(crate) use address::{own_addr, own_ip};
pub(crate) use api::{Api, HttpStream, Reply};
pub(crate) use browser::{Browser, axe};
pub(crate) use client::{Client, echoes, enters, is_reset, reset, reset_seen, udp_client, udp_client_from};
pub(crate) use content::Content;
pub(crate) use daemon::{Line, Portway, Ran, Setup, check, portway, portway_program};
pub(crate) use engine::{Engine, container};
pub(crate) use fake_api::{End, FakeApi};
pub(crate) use household::{HomeRouter, Household, LAN_TARGET};
pub(crate) use lab::{
    add_address, as_root, copy_libraries, in_container_lab, in_container_lab_of_the_dockerfile,
    in_fake_household, in_household, in_own_network, in_own_network_with_minecraft, in_router_lab,
    in_router_lab_with_minecraft, run, under_bare_systemd, under_systemd, with_accessibility_rules,
    with_tools,
};
pub(crate) use neighbour::{Neighbour, Network};
pub(crate) use program::Program;
pub(crate) use router::{FakeRouter, RouterLab};
pub(crate) use source::{paths, sources, src};
pub(crate) use systemd::{Suite, SystemdLab};
pub(crate) use target::{TcpTarget, UdpTarget};
pub(crate) use terminal::RealTerminal;
pub(crate) use wait::{DEADLINE, eventually, eventually_within, paced, pass};

use std::net::SocketAddr;

/// A mapping of the configuration file: `listen` to `target` over TCP, with further keys.
pub(crate) fn mapping(listen: SocketAddr, target: SocketAddr, more: &str) -> String {
    format!("[[mapping]]\npublish = \"{listen}:{target}\"\n{more}\n")
}

/// The same over UDP.
pub(crate) fn udp_mapping(listen: SocketAddr, target: SocketAddr, more: &str) -> String {
    format!("[[mapping]]\npublish = \"{listen}:{target}/udp\"\n{more}\n")
}
