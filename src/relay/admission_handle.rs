//! How a listener asks for the admission of a client, and what follows a refusal.
//!
//! The decision and the counts are in [`Admission`], which several listeners share. A refusal
//! writes one line at `debug`, so that strangers cannot fill a disk. It also wakes the task that
//! sums refusals up.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    events::{Draft, EventKind},
    meter::ListenerMeter,
    policy::{Admission, Permit, Refusal},
};

/// Leads a listener to the admission of its mapping. A change takes hold with the next client.
#[derive(Clone, Debug)]
pub(crate) struct AdmissionHandle {
    /// The admission of the mapping that the listener belongs to now.
    pub admission: watch::Receiver<Arc<Admission>>,
    /// Notified after each refusal.
    pub refused: Arc<Notify>,
}

impl AdmissionHandle {
    /// Admits a client, given by its canonical address, or says why not.
    pub(super) fn admit(&self, client: IpAddr, meter: &ListenerMeter) -> Result<Permit, Refusal> {
        self.admission.borrow().admit(client, meter.protocol(), Instant::now())
    }

    /// The admission of this moment.
    pub(super) fn current(&self) -> watch::Ref<'_, Arc<Admission>> {
        self.admission.borrow()
    }

    /// Reports a refusal.
    pub(super) fn report(&self, client: SocketAddr, refusal: Refusal, meter: &ListenerMeter) {
        self.refused.notify_one();
        tracing::debug!(
            mapping = %meter.mapping(),
            protocol = meter.protocol().as_str(),
            client.addr = %client,
            listen.addr = %meter.listen(),
            reason = refusal.as_str(),
            "session refused"
        );
        meter.record_refusal(client, refusal.as_str());
        meter.events().emit(EventKind::SessionRefused, || {
            let reason = refusal.as_str();
            let message = format_args!("{} client {client} refused: {reason}", meter.protocol());
            Draft::new(message).mapping(meter.mapping()).client(client).reason(reason)
        });
    }
}
