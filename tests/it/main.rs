//! portway from outside: every test starts the real program and speaks to it as its users do.
//!
//! A file a subject; each test is named as the claim that it proves. [`harness`] holds what they share: the daemon
//! under test, targets, clients, and the only place where time passes. A test that cannot run on this machine says so
//! through the harness, and `tests/run` counts it.

#[path = "../free_ports.rs"]
mod free_ports;
mod harness;
#[path = "../random.rs"]
mod random;

mod api;
mod api_access;
mod api_limits;
mod api_managed;
mod api_routes;
mod api_socket;
mod bench;
mod bounds;
mod check_input;
mod check_warnings;
mod check_ways;
mod circles;
mod cli;
mod clients;
mod containers;
mod ctl;
mod ctl_daemon;
mod cures;
mod dashboard;
mod dial;
mod docker;
mod docs;
mod doctor;
mod drain;
mod empty_plan;
mod environment;
mod first_time;
mod flood;
mod foreign_text;
mod guard;
mod handover;
mod handover_failures;
mod handover_load;
mod host_bits;
mod import;
mod init;
mod journal;
mod knock;
mod layers;
mod limits;
mod log_targets;
mod logging;
mod metrics;
mod names;
mod names_minecraft;
mod packages;
mod policy;
mod pool;
mod ports;
mod pressure;
mod probe;
mod proxy;
mod real;
mod recorder;
mod reload;
mod replace;
mod router;
mod router_changes;
mod router_home;
mod router_lab;
mod router_neighbours;
mod sandbox;
mod service_manager;
mod session_lines;
mod signals;
mod silence;
mod srv;
mod standstill;
mod start;
mod systemd;
mod targets;
mod tasks;
mod tcp;
mod throttle;
mod top;
mod transparent;
mod udp;
mod udp_lead;
mod urgent;
mod user;
mod vanish;
mod variables;
mod wake;
