//! The picture: one value that every window renders.
//!
//! Owns [`view`], the values of the interface. The API sends them as JSON. The command line, `top`
//! and the page read them back. A number has one name here, whatever shows it.
//!
//! Must not know how a window looks. Reads only: a change is a call on the supervisor's handle.

#![allow(dead_code, reason = "the windows come after their values")]

pub(crate) mod view;
