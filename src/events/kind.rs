//! What an event can be about, and its words.

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventKind {
    /// A client was admitted.
    SessionStarted,
    /// A session ended.
    SessionEnded,
    /// A client was refused.
    SessionRefused,
    /// Sessions cannot reach a target.
    TargetDown,
    /// They can again.
    TargetUp,
    /// A target is started, because a client came.
    TargetStarting,
    /// A started target takes clients.
    TargetStarted,
    /// A target was stopped, because no session was left.
    TargetStopped,
    /// A target could not be started.
    StartFailed,
    /// A listener takes clients.
    Listening,
    /// A listener has no socket, because its address or port is not free.
    ListenerWaiting,
    /// The socket of a listener died.
    ListenerFailed,
    /// A listener takes no more clients.
    ListenerClosed,
    /// A client was banned.
    Banned,
    /// An operator ended a ban.
    Unbanned,
    /// A client is let in, because it knocked.
    KnockAccepted,
    /// The time of a client that knocked is over.
    KnockEnded,
    /// A changed configuration runs.
    ReloadApplied,
    /// A changed configuration was refused.
    ReloadRefused,
    /// Something changed on the home router.
    Router,
    /// A mapping was made at run time.
    MappingAdded,
    /// A mapping that was made at run time was removed.
    MappingRemoved,
    /// A mapping was paused.
    MappingPaused,
    /// A paused mapping goes on.
    MappingResumed,
    /// The log has another level.
    LogLevel,
    /// The daemon ends.
    Stopping,
    /// A new process is about to take over.
    HandingOver,
    /// It has taken over, and this is the first that it tells.
    HandedOver,
    /// It could not; all goes on.
    HandOverFailed,
}

impl EventKind {
    /// Every kind.
    pub(super) const ALL: [Self; 29] = [
        Self::SessionStarted,
        Self::SessionEnded,
        Self::SessionRefused,
        Self::TargetDown,
        Self::TargetUp,
        Self::TargetStarting,
        Self::TargetStarted,
        Self::TargetStopped,
        Self::StartFailed,
        Self::Listening,
        Self::ListenerWaiting,
        Self::ListenerFailed,
        Self::ListenerClosed,
        Self::Banned,
        Self::Unbanned,
        Self::KnockAccepted,
        Self::KnockEnded,
        Self::ReloadApplied,
        Self::ReloadRefused,
        Self::Router,
        Self::MappingAdded,
        Self::MappingRemoved,
        Self::MappingPaused,
        Self::MappingResumed,
        Self::LogLevel,
        Self::HandingOver,
        Self::HandedOver,
        Self::HandOverFailed,
        Self::Stopping,
    ];

    /// The word of the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStarted => "session-started",
            Self::SessionEnded => "session-ended",
            Self::SessionRefused => "session-refused",
            Self::TargetDown => "target-down",
            Self::TargetUp => "target-up",
            Self::TargetStarting => "target-starting",
            Self::TargetStarted => "target-started",
            Self::TargetStopped => "target-stopped",
            Self::StartFailed => "start-failed",
            Self::Listening => "listening",
            Self::ListenerWaiting => "listener-waiting",
            Self::ListenerFailed => "listener-failed",
            Self::ListenerClosed => "listener-closed",
            Self::Banned => "banned",
            Self::Unbanned => "unbanned",
            Self::KnockAccepted => "knock-accepted",
            Self::KnockEnded => "knock-ended",
            Self::ReloadApplied => "reload-applied",
            Self::ReloadRefused => "reload-refused",
            Self::Router => "router",
            Self::MappingAdded => "mapping-added",
            Self::MappingRemoved => "mapping-removed",
            Self::MappingPaused => "mapping-paused",
            Self::MappingResumed => "mapping-resumed",
            Self::LogLevel => "log-level",
            Self::Stopping => "stopping",
            Self::HandingOver => "handing-over",
            Self::HandedOver => "handed-over",
            Self::HandOverFailed => "hand-over-failed",
        }
    }

    /// Whether strangers cause it at will.
    pub(super) const fn is_of_sessions(self) -> bool {
        matches!(self, Self::SessionStarted | Self::SessionEnded | Self::SessionRefused)
    }
}
