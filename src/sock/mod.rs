//! Sockets: made, bound and set up, and what their errors mean.
//!
//! Owns every socket option, the classes of errors ([`errno`]), the pauses between failures
//! ([`Backoff`]) and the calls that no crate has ([`tcp_info`], [`recv`]). All calls are thin:
//! nothing here waits, counts or keeps a session. Others see no `socket2` and set no option. They
//! know a socket as tokio's or the standard library's.
//!
//! It knows the addresses of [`mapping`](crate::mapping), and no policy, target or configuration.

pub(crate) mod bind;
#[cfg(feature = "wake")]
pub(crate) mod broadcast;
pub(crate) mod errno;
#[cfg(feature = "api")]
pub(crate) mod hops;
pub(crate) mod inherited;
#[cfg(feature = "api")]
pub(crate) mod interfaces;
pub(crate) mod stream;
pub(crate) mod transparent;
pub(crate) mod udp;
#[cfg(feature = "api")]
pub(crate) mod unix;

mod backoff;
mod file;
mod keepalive;
mod netlink;
mod recv;
mod routes;
mod rules;
mod scope;
mod tcp_info;

pub(crate) use backoff::Backoff;
#[cfg(test)]
pub(crate) use file::receive_file;
pub(crate) use file::send_file;
pub(crate) use keepalive::{may_wait, set_keepalive, set_unanswered_limit, unanswered_limit};
pub(crate) use recv::{Received, receive};
#[cfg(feature = "api")]
pub(crate) use scope::leaves_by;
pub(crate) use scope::{leads_here, scoped};
pub(crate) use tcp_info::{Flight, queued};
