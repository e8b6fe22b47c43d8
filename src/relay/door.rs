//! The door of a listener: the doorkeeper that it asks at the moment, and what follows a refusal.
//!
//! Owns no decision: that is the [`Admission`]'s, which several listeners share and which counts. A refusal is one line
//! at `debug`, so that nobody outside can fill a disk, and a nudge for whoever sums them up.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

#[cfg(test)]
use crate::policy::{Caps, Gate, Limit, Policy};
use crate::{
    meter::ListenerMeter,
    policy::{Admission, Permit, Refusal},
};

/// Who decides on the clients of a listener; a change takes hold with the next client.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// The doorkeeper.
    pub keeper: watch::Receiver<Arc<Admission>>,
    /// Told after each refusal.
    pub refused: Arc<Notify>,
}

impl Door {
    /// Lets a client (its canonical address) in, or says why not.
    pub(super) fn admit(&self, client: IpAddr, meter: &ListenerMeter) -> Result<Permit, Refusal> {
        self.keeper.borrow().admit(client, meter.protocol(), Instant::now())
    }

    /// The doorkeeper of this moment.
    pub(super) fn keeper(&self) -> watch::Ref<'_, Arc<Admission>> {
        self.keeper.borrow()
    }

    /// Tells of a refusal.
    pub(super) fn tell(&self, client: SocketAddr, refusal: Refusal, meter: &ListenerMeter) {
        self.refused.notify_one();
        tracing::debug!(
            mapping = %meter.mapping(),
            protocol = meter.protocol().as_str(),
            client.addr = %client,
            listen.addr = %meter.listen(),
            reason = refusal.as_str(),
            "session refused"
        );
    }
}

#[cfg(test)]
impl Door {
    /// A door under these terms, for ever.
    pub(super) fn under(policy: Policy) -> Self {
        let admission = Admission::new(&Arc::new(policy), &Gate::new(std::time::SystemTime::now));
        Self { keeper: watch::Sender::new(admission).subscribe(), refused: Arc::default() }
    }

    /// A door that is open to everyone.
    pub(super) fn open() -> Self {
        let caps = Caps { sessions: Limit::Unlimited, sessions_per_client: Limit::Unlimited };
        Self::under(Policy { caps, ..Policy::default() })
    }
}
