//! What a TCP listener and the starts of its sessions work with.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Sessions, TcpSpec, silent_drops::SilentDrops};
use crate::{
    meter::ListenerMeter,
    relay::{AdmissionHandle, LogLimits},
    targets::{Dialer, PoolHandle},
    wake::Wakers,
};

/// What a TCP listener works with.
#[derive(Debug)]
pub(crate) struct TcpService {
    /// What it does with a connection; a change takes hold with the next one.
    pub spec: watch::Receiver<Arc<TcpSpec>>,
    /// Decides on clients.
    pub admission: AdmissionHandle,
    /// How its targets are reached.
    pub dialer: Dialer,
    /// Which of them is the next one.
    pub pool: PoolHandle,
    /// What starts its targets.
    pub wakers: Wakers,
    /// Its account.
    pub meter: Arc<ListenerMeter>,
    /// Where dropped clients are kept.
    pub silence: SilentDrops,
    /// How often it may log what outsiders can cause.
    pub log: Arc<LogLimits>,
    /// Its sessions.
    pub sessions: Arc<Sessions>,
}
