//! What a hand-over says to the service manager.

use sd_notify::NotifyState;

/// Names the main process of the service.
pub(super) fn is_main(pid: u32) {
    if let Err(error) = sd_notify::notify(&[NotifyState::MainPid(pid)]) {
        tracing::warn!(%error, pid, "the service manager does not know the main process");
    }
}
