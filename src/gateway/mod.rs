//! The home router follows: what is live and shall be reached from the internet is open on the router, and nothing else
//! of ours.

mod driver;
