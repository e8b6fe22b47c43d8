//! Why a session ended: the one closed list of causes.

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Ended {
    /// The client closed, and everything was delivered.
    ClientClosed = 1,
    /// The target closed first, and everything was delivered.
    TargetClosed,
    /// The client's side failed: a reset, or a time-out of the network.
    ClientError,
    /// The target's side failed after it had been reached.
    TargetError,
    /// No target could be reached.
    Unreachable,
    /// Nothing moved for `idle_timeout`.
    Idle,
    /// One side had ended, and the other was silent for `half_close_timeout`.
    HalfCloseTimeout,
    /// Someone asked for its end.
    ClosedByOperator,
    /// A policy no longer allows it.
    Policy,
    /// Its mapping was removed or changed by a reload, and the grace was over.
    Reload,
    /// The daemon stopped, and the grace was over.
    Shutdown,
    /// The client, or a proxy before it, did not say in time what it has to say first: a name that
    /// leads somewhere, or a PROXY header.
    Preface,
}

impl Ended {
    /// Every cause, in the order of the interface.
    pub(crate) const ALL: [Self; 12] = [
        Self::ClientClosed,
        Self::TargetClosed,
        Self::ClientError,
        Self::TargetError,
        Self::Unreachable,
        Self::Idle,
        Self::HalfCloseTimeout,
        Self::ClosedByOperator,
        Self::Policy,
        Self::Reload,
        Self::Shutdown,
        Self::Preface,
    ];

    /// The word of the session line and of metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client-closed",
            Self::TargetClosed => "target-closed",
            Self::ClientError => "client-error",
            Self::TargetError => "target-error",
            Self::Unreachable => "unreachable",
            Self::Idle => "idle",
            Self::HalfCloseTimeout => "half-close-timeout",
            Self::ClosedByOperator => "closed-by-operator",
            Self::Policy => "policy",
            Self::Reload => "reload",
            Self::Shutdown => "shutdown",
            Self::Preface => "preface",
        }
    }

    /// Whether something failed: a connection broke, or no target could be reached.
    pub(crate) const fn is_error(self) -> bool {
        matches!(self, Self::ClientError | Self::TargetError | Self::Unreachable)
    }

    /// Its place in [`Ended::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize - 1
    }

    /// The cause as a number above 0, for an atomic cell.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The cause that [`Ended::code`] gave; `None` for 0 and anything unknown.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_found_by_its_place_and_its_code() {
        for (place, cause) in Ended::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), place);
            assert_eq!(Ended::from_code(cause.code()), Some(cause));
        }
        assert_eq!(Ended::from_code(0), None);
        assert_eq!(Ended::from_code(200), None);
    }
}
