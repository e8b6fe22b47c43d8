//! What the configuration says of knocks.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::sequence::Port;

/// The terms of knocks (`[knock]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnockSpec {
    /// The server's secret; `None` where only the sequence opens.
    pub(crate) secret: Option<ServerSecret>,
    /// Where knocks come, as it was written; `None` where only the sequence opens.
    pub(crate) listen: Option<Arc<str>>,
    /// The keys that open.
    pub(crate) keys: Vec<KnockKey>,
    /// The ports that open in this order; none where it is empty.
    pub(crate) sequence: Vec<Port>,
    /// How long a client may enter after its knock.
    pub(crate) open_for: Duration,
    /// The files that were read for it.
    pub(crate) files: Vec<PathBuf>,
    /// Where grants and taken knocks are kept over a restart. `None` keeps them in memory only.
    pub(crate) state: Option<PathBuf>,
}

/// A key that opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnockKey {
    /// Its name.
    pub name: Arc<str>,
    /// The client's public half.
    pub public: [u8; 32],
}

/// The server's secret. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServerSecret(pub(crate) [u8; 32]);

impl fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSecret(..)")
    }
}
