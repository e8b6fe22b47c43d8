//! What the events of a session say, kept as values until a reader wants the text.
//!
//! Owns the wording and nothing else. The session may be long gone when the text is made, so these
//! values hold no part of it.

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    time::Duration,
};

use super::{Ended, Moved};
use crate::mapping::{Protocol, TargetAddr};

/// A client was admitted.
pub(super) struct Started {
    pub(super) protocol: Protocol,
    pub(super) client: SocketAddr,
}

impl Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} session from {} started", self.protocol, self.client)
    }
}

/// Where a session led.
pub(super) enum Led {
    /// Nowhere that is known.
    Nowhere,
    /// To this address.
    To(SocketAddr),
    /// To no address of this target.
    Toward(TargetAddr),
}

/// A session ended.
pub(super) struct Over {
    pub(super) protocol: Protocol,
    pub(super) client: SocketAddr,
    pub(super) led: Led,
    pub(super) reason: Ended,
    pub(super) moved: Moved,
    pub(super) duration: Duration,
    /// What the system said.
    pub(super) error: Option<String>,
}

impl Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, client, led, reason, moved, duration, error } = self;
        write!(f, "{protocol} session from {client} to ")?;
        match led {
            Led::Nowhere => f.write_str("-")?,
            Led::To(addr) => addr.fmt(f)?,
            Led::Toward(target) => target.fmt(f)?,
        }
        let (bytes_in, bytes_out, lasted) = (moved.bytes_in, moved.bytes_out, duration.as_secs_f64());
        write!(f, " ended: {}, {bytes_in} bytes in, {bytes_out} bytes out, {lasted:.1} s", reason.as_str())?;
        error.as_ref().map_or(Ok(()), |error| write!(f, " ({error})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_gone_is_told_whole() {
        let client = SocketAddr::from(([192, 0, 2, 7], 50_000));
        let started = Started { protocol: Protocol::Tcp, client };
        assert_eq!(started.to_string(), "tcp session from 192.0.2.7:50000 started");
        let over = |led, error| Over {
            protocol: Protocol::Udp,
            client,
            led,
            reason: Ended::Idle,
            moved: Moved { bytes_in: 5, bytes_out: 6, ..Moved::default() },
            duration: Duration::from_millis(1_450),
            error,
        };
        assert_eq!(
            over(Led::To(([192, 0, 2, 8], 80).into()), None).to_string(),
            "udp session from 192.0.2.7:50000 to 192.0.2.8:80 ended: idle, 5 bytes in, 6 bytes out, 1.4 s"
        );
        assert!(
            over(Led::Nowhere, Some("why".to_owned()))
                .to_string()
                .ends_with(" to - ended: idle, 5 bytes in, 6 bytes out, 1.4 s (why)")
        );
    }
}
