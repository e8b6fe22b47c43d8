//! What a client says first: which name it wants, and who it is behind a proxy.

pub(crate) mod hosts;
pub(crate) mod proxy;
