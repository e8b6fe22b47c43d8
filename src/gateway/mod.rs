//! The home router follows: what is live and shall be reached from the internet is open on the router, and nothing else
//! of ours.

mod driver;
mod natpmp;
mod pcp;
mod probe;
mod route;
mod text;
mod upnp;
